"""Xet storage: the third port, beside Hub and CDN.

A file is a list of terms, each a range of chunks of a xorb. The client asks for the reconstruction
of a file (or of a range of its bytes), and fetches the ranges of xorbs that it names by signed
URLs. What the real client (hf_xet) has uploaded is kept as it came, xorbs and shards, below
`<root>/.localhub/xet`. https://huggingface.co/docs/xet describes formats and routes.

`formats` reads xorbs and shards, `reconstruction` decides what a range of a file takes, `store`
keeps them, `grants` makes and judges tokens, `cas` has the routes, and `upload` runs the client
(`__main__`).
"""
