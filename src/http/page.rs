//! The dashboard's files: `/`, `/style.css` and its two scripts, as they lie in `src/http/page/`, compressed when the node was built.

use crate::http::reply::{Kept, Reply};
use crate::http::routes::{HTML, Route};

/// A file that is part of the program.
struct File {
    kind: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

macro_rules! file {
    ($name:literal, $kind:expr) => {
        File {
            kind: $kind,
            plain: include_bytes!(concat!("page/", $name)),
            gzip: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".gz")),
        }
    };
}

static INDEX: File = file!("index.html", HTML);
static STYLE: File = file!("style.css", "text/css; charset=utf-8");
static SCRIPT: File = file!("script.js", "text/javascript; charset=utf-8");
static PORTFOLIO: File = file!("portfolio.js", "text/javascript; charset=utf-8");

/// One of the files, for who takes gzip or does not.
pub fn answer(route: Route, gzip: bool) -> Reply {
    let file = match route {
        Route::Style => &STYLE,
        Route::Script => &SCRIPT,
        Route::PortfolioScript => &PORTFOLIO,
        _ => &INDEX,
    };
    // What a gzip file ends with, checksum and length of its content, names the content. The two encodings are two things
    // (RFC 9110 §8.8.3.3).
    let sum: String = file.gzip.iter().rev().take(8).map(|byte| format!("{byte:02x}")).collect();
    let (body, tag) = if gzip { (file.gzip, format!("\"{sum}-gzip\"")) } else { (file.plain, format!("\"{sum}\"")) };
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
        let bytes: usize = files.iter().map(|file| file.plain.len()).sum();
        assert!(bytes < PAGE_BYTES_MAX, "{bytes} bytes");
        for file in files {
            let text = String::from_utf8_lossy(file.plain).replace("http://www.w3.org/", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "something is named that lies elsewhere");
            assert!(file.gzip.starts_with(&[0x1f, 0x8b, 8]) && file.gzip.len() * 2 < file.plain.len());
            assert!(file.gzip.ends_with(&(file.plain.len() as u32).to_le_bytes()));
        }
        // The policy that goes with it forbids these.
        let page = String::from_utf8_lossy(INDEX.plain);
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick="));
        assert!(page.matches("<script").count() == page.matches("<script src=").count());
    }
}
