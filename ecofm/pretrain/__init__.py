"""Contrastive pretraining on the tiles of one or several archives."""
