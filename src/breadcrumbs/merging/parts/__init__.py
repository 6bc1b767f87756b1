"""A merge in parts: shards done by any processes or machines, in any order, and committed once.

    merge = Merge(recipe, "merged")             plain data, the same for all
    merge_part(merge, 3, 64)                    every 64th shard from the 3rd; may be called again
    commit(merge)                               headers, index, card and recipe, and the name
    drive(merge, 64, each)                      all of it, over whatever runs functions
    on_processes(merge, 4)                      such as processes of this machine,
    on_ray(merge, "ray://host:10001")           or a cluster

No engine is needed and no lock is held: what is found and written lies in files beside the output
(`state`). The bytes are those of `breadcrumbs.merge`.
"""

from breadcrumbs.merging.parts.committing import commit
from breadcrumbs.merging.parts.doing import Merge, PartReport, merge_part
from breadcrumbs.merging.parts.driving import drive, on_processes
from breadcrumbs.merging.parts.sending import on_ray

__all__ = ["Merge", "PartReport", "commit", "drive", "merge_part", "on_processes", "on_ray"]
