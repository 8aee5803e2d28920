"""One reader of files for `replay`, `evaluate`, `prepare` and imports.

What one of them takes, all take, with the same checks and the same words: files of a source
(`selection`), their compression (`containers`), encoding and lines (`texts`), fields or records
(`delimited`, `documents`, `sheets`), which format it is and what its columns mean (`formats`,
`guesses`), and what is wrong with a row (`fields`, `times`). `files` opens one, `recognition` says
what a source is, `reshaping` makes rows of records, and `reader` gives the rows.
"""
