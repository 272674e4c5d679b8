"""The YAML that people write: read with the line of every value, checked, made whole.

`models` holds what may be written, `load` reads files into `Documents`, and `resolve` turns one
template of them into the `ClusterSpec` that the rest of the program works with. Import from the
modules themselves: this package stays empty so that a command loads only what it needs.
"""
