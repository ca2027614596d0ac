//! Compresses the dashboard's files and the API's schemas, once and for all: what a browser is sent is never compressed while somebody
//! waits. And has the linker make the program smaller, where it can.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use miniz_oxide::deflate::compress_to_vec;

/// The best there is: it is done once.
const LEVEL: u8 = 10;

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for (dir, name) in
        [("page/", "index.html"), ("page/", "style.css"), ("page/", "script.js"), ("page/", "portfolio.js"), ("", "schemas.txt")]
    {
        let file = format!("src/http/{dir}{name}");
        println!("cargo::rerun-if-changed={file}");
        fs::write(out.join(format!("{name}.gz")), gzip(&fs::read(file)?))?;
    }
    println!("cargo::rerun-if-changed=build.rs");
    if var("PROFILE") == "release" && var("TARGET") == var("HOST") && var("CARGO_CFG_TARGET_ENV") == "gnu" {
        smaller();
    }
    Ok(())
}

/// Tells the linker how the program becomes smaller: 6 % of it.
fn smaller() {
    // Relocations in a packed form, which this machine's own C library must understand.
    if glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    // One copy of functions that are alike, as generic ones often are. Only the linker that comes with rustc is known to do it, and it is
    // asked only where it is the one that is taken anyway.
    let target = var("TARGET");
    let linker = Path::new(&said(&var("RUSTC"), &["--print", "sysroot"])).join(format!("lib/rustlib/{target}/bin/gcc-ld/ld.lld"));
    let version = said(&var("RUSTC"), &["--version"]);
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0);
    let chosen = format!("{}{}", var("RUSTC_LINKER"), var("CARGO_ENCODED_RUSTFLAGS"));
    if target == "x86_64-unknown-linux-gnu" && minor >= 90 && chosen.is_empty() && linker.exists() {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}

/// The version of this machine's C library, if it is GNU's.
fn glibc() -> Option<(u32, u32)> {
    let said = said("getconf", &["GNU_LIBC_VERSION"]);
    let (major, minor) = said.strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

/// What a program says; nothing if there is none.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_default()
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
