"""The configuration: YAML and environment to frozen options, every limit checked against the others.

`tree` reads the file and the variables and remembers where each value was written; `grammar` knows from the options'
annotations what may be written where; `settings` has all options together; `loading` makes them of the tree, with
every problem as one line; `checks` finds values that contradict one another; `reference` documents every key.
"""

from consumer.config.loading import load
from consumer.config.settings import Settings

__all__ = ["Settings", "load"]
