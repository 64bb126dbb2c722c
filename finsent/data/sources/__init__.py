"""Sources: from the URIs in the settings to files that are found, checked and ready to be read.

`files.find_sources` is the entrance. It expands URIs to locations (`expansion`, `hubs`), inspects
each file (`file_inspection`), and returns `source_file.SourceFile`, whose rows
`finsent.data.readers` reads.
"""
