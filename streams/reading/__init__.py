"""One reader of files for `replay`, `evaluate`, `prepare` and imports: same formats, same checks.

In the order of reading: `source_files` lists the files of a source; `records` unpacks and decodes
them, and splits them into records (`files` opens a file by these). `recognition` finds the format
(`formats`) and maps columns to fields (`column_mapping`, `guesses`). `reader` gives the rows, made
of records by `reshaping`, and `fields` and `times` check them.
"""
