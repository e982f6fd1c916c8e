"""All kernels that search."""

from stores.index.kernels.disk import search_bits, search_blocks
from stores.index.kernels.scan import scan_rows
from stores.index.kernels.traverse import rotate, scan_nodes, search_graph

__all__ = ["rotate", "scan_nodes", "scan_rows", "search_bits", "search_blocks", "search_graph"]
