"""How fast the kernels are, and what memory they take, against others: `python -m llmctl_kernels.bench`."""
