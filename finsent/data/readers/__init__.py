"""Readers: from the bytes of a file to tables of records, for each file format.

`formats.FORMATS` is the table of formats; `formats` describes how to add one. Each reader yields
tables of `columns.Columns.schema`, and `layout.FileLayout` tells a reader how the bytes are laid
out. Readers know nothing of where files are: see `finsent.data.sources`.
"""
