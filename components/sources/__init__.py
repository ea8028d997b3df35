"""Where `prepare` gets images and labels: one module per source, each with one function

    load(params, *, scratch, downloads, progress) -> RawDataset

`scratch` is an empty folder that is removed when preparing ends; `downloads` keeps what came over the network.
A source checks what concerns its layout; images and boxes are checked afterwards, alike for all.
"""
