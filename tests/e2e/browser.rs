//! The dashboard in a real headless Chromium, on a real node. Chromium is taken from `CHROMIUM_EXE` or the PATH; without it the tests say
//! that they were skipped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::browser_pipe::Browser;
use crate::kit::{ADDRESS, Miner, Rockpool, temp};

const HTML: &str = include_str!("../../src/http/page/index.html");
const STYLE: &str = include_str!("../../src/http/page/style.css");
const SCRIPT: &str = concat!(include_str!("../../src/http/page/script.js"), include_str!("../../src/http/page/portfolio.js"));

/// What a miner may call itself; as markup it would say so.
pub const HOSTILE: &str = "<img/src=x/onerror=window.robbed=1>";

/// The sections, and of each what shows that it has content.
const SECTIONS: [(&str, &str); 9] = [
    ("rate", "#own-rate"),
    ("chain", "#links .node.main"),
    ("miners", "#miners-list tbody tr"),
    ("mine", "#mine-facts dd"),
    ("payouts", "#pays li"),
    ("blocks", "#blocks-list tbody tr"),
    ("health", "#checks li"),
    ("connect", "#strings code"),
    ("peers", "#peers-note"),
];

/// Where a node shows its page.
pub fn url(http: SocketAddr) -> String {
    format!("http://{http}/")
}

/// A node with some shares by two workers, one of which is hostile.
fn busy(dir: &Path) -> (Rockpool, [Miner; 2]) {
    let node = Rockpool::start(dir, &[]);
    let mut miners = [format!("{ADDRESS}.garage"), format!("{ADDRESS}.{HOSTILE}")].map(|user| Miner::connect(node.stratum, &user));
    for round in 0..6 {
        one_more(&mut miners[round % 2]);
    }
    (node, miners)
}

/// Something is there, and no dash that stands for what is not known.
fn has_content(browser: &mut Browser, section: &str, content: &str) {
    browser.until(&format!("!['', '–', undefined].includes(document.querySelector('#{section} {content}')?.textContent.trim())"));
}

/// A share more. On regtest each is a block, and the job at hand may be one of before the other miner's.
fn one_more(miner: &mut Miner) {
    assert!((0..10).any(|_| miner.mine().verdict.is_ok()), "ten submits refused");
}

/// The page shows the height that the node has.
fn follows(browser: &mut Browser, node: &Rockpool) {
    let (_, height) = node.tip();
    browser.until(&format!("document.getElementById('height').textContent === '{height}'"));
}

#[test]
fn the_page_is_small_whole_and_takes_no_markup_from_anyone() {
    assert!(HTML.len() + STYLE.len() + SCRIPT.len() < 150_000);
    for sink in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "DOMParser",
        "createContextualFragment",
        "srcdoc",
    ] {
        assert!(!SCRIPT.contains(sink), "{sink}");
    }
    for inline in [" style=", "<style", " onclick", " onload", "javascript:"] {
        assert!(!HTML.contains(inline), "{inline}");
    }
    // Nothing from elsewhere: the one foreign name is that of SVG's namespace.
    let foreign = |text: &str| text.replace("http://www.w3.org/2000/svg", "").contains("//w") || text.contains("@import");
    assert!(![HTML, STYLE].into_iter().any(|text| foreign(text) || text.contains("http://") || text.contains("https://")));
    assert!(!foreign(SCRIPT) && !SCRIPT.replace("http://www.w3.org/2000/svg", "").contains("http://") && !SCRIPT.contains("https://"));
    // What the script looks up is there.
    let ids: Vec<&str> = HTML.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    for asked in SCRIPT.split("$(\"").skip(1).filter_map(|rest| rest.split('"').next()).filter(|id| *id != "cursor") {
        assert!(ids.contains(&asked), "{asked}");
    }
}

#[test]
fn it_shows_all_there_is_and_follows_the_chain() {
    let Some(mut browser) = Browser::start("it_shows_all_there_is_and_follows_the_chain") else { return };
    let dir = temp();
    let (node, mut miners) = busy(dir.path());
    // Tall enough for all of it: what is out of sight is not asked for.
    browser.screen(1280, 4000, "dark");
    browser.open(&format!("{}#{ADDRESS}", url(node.http)));
    for (section, content) in SECTIONS {
        has_content(&mut browser, section, content);
    }
    follows(&mut browser, &node);
    // On regtest every share is a block: what follows from a block's work is not shown, in no tile and in no row.
    let shown = "['next', 'time', 'effort', 'chance', 'share'].filter((tile) => !document.getElementById(`tile-${tile}`).hidden).join()";
    assert_eq!(browser.eval(shown), json!("next,share"));
    assert_eq!(browser.eval("document.getElementById('mine-facts').textContent.includes('is worth')"), json!(false));
    browser.eval("window.marker = 1");
    for round in 0..4 {
        one_more(&mut miners[round % 2]);
        follows(&mut browser, &node);
        browser.until(&format!("document.querySelectorAll('#links .node.main').length >= {}", node.tip().1));
    }
    assert_eq!(browser.eval("window.marker"), json!(1), "without a reload");

    // A share's details, by keyboard.
    browser.eval("document.querySelector('#links .node[tabindex=\"0\"]').focus()");
    for kind in ["keyDown", "keyUp"] {
        browser.call("Input.dispatchKeyEvent", json!({ "type": kind, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13 }));
    }
    browser.until("document.querySelector('#share-facts').textContent.includes('in the confirmed chain')");

    // The hostile name is text.
    browser.until(&format!("document.getElementById('miners-list').innerText.includes({})", json!(HOSTILE)));
    assert_eq!(browser.eval("[document.querySelectorAll('img').length, typeof window.robbed].join()"), json!("0,undefined"));

    let at = url(node.http);
    let elsewhere: Vec<String> = browser.requests().into_iter().filter(|url| !url.starts_with(&at)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(browser.requests().iter().any(|url| url.ends_with("/api/v1/events")));
    assert!(browser.complaints().is_empty(), "{:#?}", browser.complaints());

    // Its policy stands even where the page would fall.
    browser.eval(&format!("document.body.insertAdjacentHTML('beforeend', {})", json!(HOSTILE.replace('/', " "))));
    browser.eval(
        "{ const script = document.createElement('script'); script.textContent = 'window.robbed = 2'; document.body.append(script); }",
    );
    assert_eq!(
        browser.eval("new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(typeof window.robbed))))"),
        json!("undefined")
    );
}

#[test]
fn it_survives_a_restart_of_the_node() {
    let Some(mut browser) = Browser::start("it_survives_a_restart_of_the_node") else { return };
    let dir = temp();
    let (mut node, miners) = busy(dir.path());
    browser.screen(1280, 900, "light");
    browser.open(&url(node.http));
    follows(&mut browser, &node);
    browser.eval("window.marker = 1");
    let (http, stratum) = (node.http.to_string(), node.stratum.to_string());
    drop(miners);
    node.kill();
    browser.until("document.getElementById('state-text').textContent === 'Reconnecting…'");
    assert!(browser.eval("document.title").as_str().unwrap().contains("Reconnecting"));
    let node = Rockpool::start(dir.path(), &["--http", &http, "--stratum", &stratum]);
    browser.until("!document.getElementById('state-text').textContent.includes('onnecting')");
    let mut miner = Miner::connect(node.stratum, ADDRESS);
    one_more(&mut miner);
    follows(&mut browser, &node);
    browser.until("live");
    assert_eq!(browser.eval("window.marker"), json!(1), "without a reload");

    // Another version has another page: it is loaded, and once only.
    for reloads in [true, false] {
        browser.eval("window.marker = 1; data.status.version = 'of before'");
        one_more(&mut miner);
        let other = if reloads { "!window.marker" } else { "data.status.version !== 'of before'" };
        browser.until(&format!("document.readyState === 'complete' && {other} && document.getElementById('version').textContent"));
        follows(&mut browser, &node);
        browser.until("data.status");
    }
    assert_eq!(browser.eval("window.marker"), json!(1));
}

#[test]
fn it_fits_a_phone_and_both_themes() {
    let Some(mut browser) = Browser::start("it_fits_a_phone_and_both_themes") else { return };
    let dir = temp();
    let (node, miners) = busy(dir.path());
    let mut colours = Vec::new();
    for scheme in ["dark", "light"] {
        browser.screen(360, 6000, scheme);
        browser.open(&format!("{}#{ADDRESS}", url(node.http)));
        for (section, content) in SECTIONS {
            has_content(&mut browser, section, content);
        }
        browser.eval("document.querySelectorAll('details').forEach((details) => { details.open = true; })");
        // The largest figures that there may be.
        browser.eval(
            "data.pool.network_rate = 1e21; data.pool.luck.effort_percent = 1e14; \
             Object.assign(data.pool.expect, { pool_block_s: 1e17, own_share_s: 1e17, \
             own_block_solo_s: 1e19, own_sats_next_block: 2.1e15 }); Object.assign(data.pool.best, { ever: 1e24, session: 1e24 }); \
             renderPool(); data.payouts.value = 2.1e15; data.payouts.pays[0].sats = 2.1e15; Object.assign(data.payouts.you, { \
             sats: 2.1e15, credit_shares: 1e15, pending: { sats: 2.1e15, block_sats: 2.1e15 } }); renderPayouts(); renderMine(null)",
        );
        let wide = "[...document.querySelectorAll('body *')].filter((node) => node.getBoundingClientRect().right > 361 && \
                    !node.closest('svg, .unseen, .skip, thead')).map((node) => `${node.tagName}.${node.className}#${node.id}`).join(' ')";
        assert_eq!(browser.eval(wide), json!(""), "{scheme}: nothing is wider than the screen");
        assert_eq!(browser.eval("document.documentElement.scrollWidth"), json!(360), "{scheme}");
        colours.push(browser.eval("getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color"));
    }
    assert_ne!(colours[0], colours[1], "dark and light");
    // The switch goes against the system, and is remembered.
    let body = "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color";
    browser.eval("document.getElementById('theme').click()");
    assert_eq!(browser.eval(body), colours[0], "dark by choice on a light system");
    browser.open(&url(node.http));
    browser.until("document.getElementById('theme')?.textContent.includes('Dark')");
    assert_eq!(browser.eval(body), colours[0]);
    // For those who do not see it: every field has a label, every button a name, every heading its place.
    let unnamed = "[...document.querySelectorAll('input')].filter((input) => !input.labels.length).length + \
                   [...document.querySelectorAll('button, [role=button]')].filter((button) => \
                   !(button.textContent.trim() || button.getAttribute('aria-label'))).length";
    assert_eq!(browser.eval(unnamed), json!(0));
    assert_eq!(browser.eval("document.querySelectorAll('h1').length"), json!(1));
    assert_eq!(
        browser.eval("[...document.querySelectorAll('main > section')].filter((s) => !s.querySelector('h2')).length"),
        Value::from(0)
    );
    assert!(!browser.text("#checks").is_empty());
    drop(miners);
}

#[test]
fn with_a_token_it_lists_miners_connections_and_bans_and_lifts() {
    let Some(mut browser) = Browser::start("with_a_token_it_lists_miners_connections_and_bans_and_lifts") else { return };
    let dir = temp();
    let (node, _miners) = busy(dir.path());
    let out = Command::new(env!("CARGO_BIN_EXE_rockpool")).args(["token", "--datadir"]).arg(dir.path()).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let token = String::from_utf8(out.stdout).unwrap();
    browser.screen(1280, 4000, "light");
    browser.open(&url(node.http));
    follows(&mut browser, &node);
    browser.eval("document.getElementById('operator-box').open = true");
    let paste = |browser: &mut Browser, token: &str| {
        let token = json!(token.trim());
        browser.eval(&format!("$('token').value = {token}; $('token-form').requestSubmit()"));
    };
    paste(&mut browser, "a.wrong.one");
    browser.until("$('token-note').textContent.includes('refused') && $('operator-in').hidden");
    paste(&mut browser, &token);
    browser.until(&format!("$('sessions-list').innerText.includes('garage') && $('sessions-list').innerText.includes({})", json!(HOSTILE)));
    assert_eq!(browser.eval("document.querySelectorAll('img').length"), json!(0));
    browser.eval("$('ban-addr').value = '203.0.113.0/24'; $('ban-reason').value = '<b>x</b>'; $('ban-form').requestSubmit()");
    browser.until("$('bans-list').innerText.includes('<b>x</b>')");
    assert!(node.get("/api/v1/bans").1.contains("203.0.113.0/24"));
    browser.eval("$('bans-list').querySelector('button').click()");
    browser.until("!$('bans-empty').hidden && $('bans-list').hidden");
    assert!(!node.get("/api/v1/bans").1.contains("203.0.113.0/24"));
    // Forgotten, and with it what it showed.
    browser.eval("$('token-form').requestSubmit()");
    browser.until("$('operator-in').hidden && !$('sessions-list').textContent && !sessionStorage.getItem('token')");
}
