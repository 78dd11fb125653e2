"""From a model folder to a module, safely."""
