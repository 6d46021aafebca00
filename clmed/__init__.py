"""clmed adapts a pretrained language model to a domain and shows what every step gained and what it cost."""

__version__ = "0.1.0"
