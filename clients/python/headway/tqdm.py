"""The import path of `headway.integrations.tqdm` for scripts."""

from headway.integrations.tqdm import tqdm, trange

__all__ = ["tqdm", "trange"]
