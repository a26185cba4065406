//! Folder datasets: few-shot draws, held-out folds, photos decoded in parallel.
