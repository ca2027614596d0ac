//! Compresses the dashboard's files, once and for all: what a browser is sent is never compressed while somebody waits.

use std::path::PathBuf;
use std::{env, fs, io};

use miniz_oxide::deflate::compress_to_vec;

/// The best there is: it is done once.
const LEVEL: u8 = 10;

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for name in ["index.html", "style.css", "script.js", "portfolio.js"] {
        let file = format!("src/http/page/{name}");
        println!("cargo::rerun-if-changed={file}");
        fs::write(out.join(format!("{name}.gz")), gzip(&fs::read(file)?))?;
    }
    Ok(())
}

/// A gzip file (RFC 1952): no name, no time, so that the same content has the same bytes.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
    bytes.extend(compress_to_vec(content, LEVEL));
    bytes.extend(crc32(content).to_le_bytes());
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes
}

fn crc32(content: &[u8]) -> u32 {
    let bit = |sum: u32| if sum & 1 == 0 { sum >> 1 } else { (sum >> 1) ^ 0xedb8_8320 };
    !content.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| bit(sum)))
}
