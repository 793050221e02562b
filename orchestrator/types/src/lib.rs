//! The API kinds: typed views, schema, defaults, validation.
