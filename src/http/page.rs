//! The dashboard's files: `/`, `/style.css` and its two scripts, as they lie in `src/http/page/`, compressed when the node was built.

use crate::http::packed::{Packed, packed};
use crate::http::reply::{Kept, Reply};
use crate::http::routes::{HTML, Route};

/// A file that is part of the program.
struct File {
    kind: &'static str,
    packed: Packed,
}

macro_rules! file {
    ($name:literal, $kind:expr) => {
        File { kind: $kind, packed: packed!($name) }
    };
}

static INDEX: File = file!("index.html", HTML);
static STYLE: File = file!("style.css", "text/css; charset=utf-8");
static SCRIPT: File = file!("script.js", "text/javascript; charset=utf-8");
static PORTFOLIO: File = file!("portfolio.js", "text/javascript; charset=utf-8");

/// One of the files, for who takes gzip or does not.
pub fn answer(route: Route, gzip: bool) -> Reply {
    let file: &'static File = match route {
        Route::Style => &STYLE,
        Route::Script => &SCRIPT,
        Route::PortfolioScript => &PORTFOLIO,
        _ => &INDEX,
    };
    // What a gzip file ends with, checksum and length of its content, names the content. The two encodings are two things
    // (RFC 9110 §8.8.3.3).
    let sum: String = file.packed.gzip.iter().rev().take(8).map(|byte| format!("{byte:02x}")).collect();
    let (body, tag) = if gzip { (file.packed.gzip, format!("\"{sum}-gzip\"")) } else { (file.packed.plain(), format!("\"{sum}\"")) };
    let reply = Reply::kept(file.kind, body, Kept::Page, &tag);
    if gzip { reply.with("Content-Encoding", "gzip") } else { reply }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PAGE_BYTES_MAX;

    #[test]
    fn the_page_is_small_and_loads_nothing_from_elsewhere() {
        let files = [&INDEX, &STYLE, &SCRIPT, &PORTFOLIO];
        let bytes: usize = files.iter().map(|file| file.packed.plain().len()).sum();
        assert!(bytes < PAGE_BYTES_MAX, "{bytes} bytes");
        let sources = ["index.html", "style.css", "script.js", "portfolio.js"];
        for (file, name) in files.into_iter().zip(sources) {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page/").to_owned() + name;
            assert_eq!(std::fs::read(source).ok().as_deref(), Some(file.packed.plain()), "{name}");
            let text = String::from_utf8_lossy(file.packed.plain()).replace("http://www.w3.org/", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "something is named that lies elsewhere");
            assert!(file.packed.gzip.starts_with(&[0x1f, 0x8b, 8]) && file.packed.gzip.len() * 2 < file.packed.plain().len());
            assert!(file.packed.gzip.ends_with(&(file.packed.plain().len() as u32).to_le_bytes()));
        }
        // The policy that goes with it forbids these.
        let page = String::from_utf8_lossy(INDEX.packed.plain());
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick="));
        assert!(page.matches("<script").count() == page.matches("<script src=").count());
    }
}
