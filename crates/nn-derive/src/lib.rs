//! The derive macro of gradus-nn: writes a visitor over a module's fields.
