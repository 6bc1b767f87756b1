"""Search: which method and parameters merge a family of models best, by scores on validation rows.

A search is handed a function that scores recipes, and knows nothing else of the rows. Trials are
asked in batches of a fixed size: what a batch tries depends on the seed and on the batches before
it, never on which score came first.
"""

from breadcrumbs.tune.search.running import run
from breadcrumbs.tune.search.space import Space, parse, recipe
from breadcrumbs.tune.search.trials import Found, Trial, write

__all__ = ["Found", "Space", "Trial", "parse", "recipe", "run", "write"]
