//! How peers are found, and whom we dial.
//!
//! | file | what |
//! |---|---|
//! | `dial` | those of the configuration, and Bitcoin nodes |
//! | `book` | addresses of others |
//! | `outbound` | whom of them to dial |
//! | `wrap` | v2 or v1 for a dial |
//! | `meet` | the book and connections |
//! | `gossip` | what is said of addresses |
//! | `place` | which addresses can be reached, and which are one owner's |
//! | `kept` | what is kept of peers, on its way to the disk |

pub mod book;
pub mod dial;
pub mod gossip;
pub mod kept;
pub mod meet;
pub mod outbound;
pub mod place;
pub mod wrap;
