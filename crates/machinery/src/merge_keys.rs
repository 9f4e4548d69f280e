//! What upstream's types say about how their lists and maps are merged.
