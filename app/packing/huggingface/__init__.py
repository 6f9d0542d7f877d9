"""Directories of the library transformers: classifiers of texts and images, with their steps."""
