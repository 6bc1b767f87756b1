"""Pages to look at: plain data in, one self-contained HTML file or single figures out.

`page` has the data, `charts` makes figures of numbers, `html` and `drawing` draw, `files` writes.
What stands on a page is said where the numbers come from: `merging.picture`,
`evaluate.results.picture`, `tune.search.picture`, `store.picture`.
"""
