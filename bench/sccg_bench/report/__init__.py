"""Reports, all made from one :class:`sccg_bench.results.Results`: terminal, Markdown, HTML, CSV, picture sheets."""
