"""Rows from and to the files that others use: JSONL, NumPy, Parquet, fvecs and ivecs."""

from stores.interchange.files import FORMATS, Report, export_rows, import_rows

__all__ = ["FORMATS", "Report", "export_rows", "import_rows"]
