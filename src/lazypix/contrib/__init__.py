"""lazypix inside of web frameworks. Each module needs its framework: `pip install "lazypix[<framework>]"`."""
