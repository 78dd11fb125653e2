"""The API, the steward, the command line and the store. Imports neither torch nor `workers`."""
