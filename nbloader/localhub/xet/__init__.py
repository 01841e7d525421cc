"""Xet storage: the third port, beside Hub and CDN.

A file is a list of terms, each a range of chunks of a xorb. The client asks for the reconstruction
of a file (or of a range of its bytes), and fetches the ranges of xorbs that it names by signed
URLs. What the real client (hf_xet) has uploaded is kept as it came, xorbs and shards, below
`<root>/.localhub/xet`. https://huggingface.co/docs/xet describes formats and routes.

`formats` reads xorbs and shards, `store` keeps them and decides what a range of a file takes, `cas`
has the routes, and `__main__` uploads with the real client. Grants are made in `access`.
"""
