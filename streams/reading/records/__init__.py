"""Records of each shape of file, one at a time.

`containers` unpacks a file and `text_streams` decodes it; `delimited`, `json_records`,
`xml_records` and `sheets` split it into records.
"""
