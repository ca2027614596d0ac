//! Rows of portfolios.
