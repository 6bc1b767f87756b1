"""mergekit's configurations as recipes: `convert` reads one and says the same in our words.

`lines` reads YAML with line numbers, `kinds` tells which program of mergekit's a file is for and
parts one that holds several merges, `config` checks the structure, `settings` finds the value of a
setting for a tensor, `methods` says what a method of mergekit's is here, `translate` puts it
together. Nothing of mergekit is needed for that.
"""

from breadcrumbs.plan.mergekit.kinds import Document, documents, is_config
from breadcrumbs.plan.mergekit.translate import Converted, convert

__all__ = ["Converted", "Document", "convert", "documents", "is_config"]
