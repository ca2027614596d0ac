//! The dashboard's section on portfolios in a real headless Chromium, on a real node, with services outside that run in the test.

use std::process::Command;

use rockpool_workers::outside::fake::{Asked, FakeService, Reply};
use serde_json::{Value, json};

use crate::browser::{HOSTILE, url};
use crate::browser_pipe::Browser;
use crate::kit::{Rockpool, temp};
use crate::portfolios::token;

/// What nobody may see after it was typed.
const SECRETS: [&str; 3] = ["7e57-0f-a-key", "S3CR3T-0f-0kx", "W0RD-0f-passing"];

/// CoinGecko with two coins, and a price of long ago for one of them.
fn coingecko() -> FakeService {
    FakeService::start(|asked: &Asked| match asked.path() {
        "/simple/price" => Reply::json(&json!({ "bitcoin": { "usd": 50_000, "eur": 25_000, "last_updated_at": 1_700_000_000 } })),
        "/coins/markets" => Reply::json(&json!([
            { "id": "bitcoin", "symbol": "btc", "name": "Bitcoin" },
            { "id": "hostile", "symbol": "hst", "name": HOSTILE },
        ])),
        _ => Reply::json(&json!([])),
    })
}

/// OKX with both of them, and with a coin that nobody else knows.
fn okx() -> FakeService {
    FakeService::start(|asked: &Asked| {
        let trading = json!([{ "details": [{ "ccy": "BTC", "eq": "1.5" }, { "ccy": "HST", "eq": "100000" }] }]);
        let data = if asked.path() == "/api/v5/account/balance" { trading } else { json!([{ "ccy": "NOPRICE", "bal": "7" }]) };
        Reply::json(&json!({ "code": "0", "msg": "", "data": data }))
    })
}

fn paste(browser: &mut Browser, token: &str) {
    browser.eval(&format!("$('operator-box').open = true; $('token').value = {}; $('token-form').requestSubmit()", json!(token)));
}

/// What a selector finds first is clicked.
fn click(browser: &mut Browser, selector: &str) {
    browser.eval(&format!("document.querySelector({}).click()", json!(selector)));
}

/// What goes out of the screen's width, in the section and the question.
const WIDE: &str = "[...document.querySelectorAll('#portfolio *, #sure *')].filter((node) => node.getBoundingClientRect().right > 361 && \
                    !node.closest('svg, .unseen, thead')).map((node) => `${node.tagName}.${node.className}#${node.id}`).join(' ')";

#[test]
fn without_a_token_or_portfolios_one_sentence_says_how_to_have_them() {
    let Some(mut browser) = Browser::start("without_a_token_or_portfolios_one_sentence_says_how_to_have_them") else { return };
    let dir = temp();
    let node = Rockpool::start(dir.path(), &[]);
    browser.screen(1280, 5000, "light");
    browser.open(&url(node.http));
    browser.until("document.readyState === 'complete' && data.status");
    let quiet = "$('portfolio').hidden && !$('portfolio-off').hidden && $('portfolio-on').hidden";
    browser.until(quiet);
    assert!(browser.text("#portfolio-off").contains("--portfolios"));
    assert!(!browser.requests().iter().any(|url| url.contains("/api/v1/portfolios")), "who has no token asks for nothing");
    // With a token of an operator the rest is there; portfolios are off.
    let out = Command::new(env!("CARGO_BIN_EXE_rockpool")).args(["token", "--datadir"]).arg(dir.path()).output().unwrap();
    paste(&mut browser, String::from_utf8(out.stdout).unwrap().trim());
    browser.until("shut.portfolio && data.sessions && !$('operator-in').hidden");
    browser.until(quiet);
    // One that opens nothing is forgotten.
    browser.eval("$('token-form').requestSubmit()");
    paste(&mut browser, &token(dir.path(), "ann"));
    browser.until("!token && $('token-note').textContent.includes('refused')");
    browser.until(quiet);
}

#[test]
fn with_a_token_it_shows_a_portfolio_and_changes_it() {
    let Some(mut browser) = Browser::start("with_a_token_it_shows_a_portfolio_and_changes_it") else { return };
    let (dir, keep, coingecko, okx) = (temp(), temp(), coingecko(), okx());
    let (key, prices, balances) = (keep.path().join("portfolio.key"), coingecko.url(), okx.url());
    let outside = ["--coingecko", &prices, "--okx", &balances, "--outside", "coingecko=5,0", "--outside", "okx=3,0"];
    let own = ["--portfolios", "--currency", "usd", "--currency", "eur", "--portfolio-key", key.to_str().unwrap()];
    let node = Rockpool::start(dir.path(), &[&own[..], &outside[..]].concat());
    browser.screen(1280, 5000, "light");
    browser.open(&url(node.http));
    browser.until("document.readyState === 'complete' && data.status && $('portfolio').hidden");
    paste(&mut browser, &token(dir.path(), "ann"));
    // A user's token opens portfolios and not the operator's part.
    browser.until("!$('portfolio-whole').hidden && $('operator-in').hidden && $('portfolio-who').textContent.includes('ann')");
    browser.until("!$('accounts-empty').hidden && $('account-box').open");

    click(&mut browser, "[data-kind=okx]");
    // The fields of secrets are empty as soon as they are sent, and nothing of them is left anywhere.
    let [key, secret, passphrase] = SECRETS.map(|text| json!(text));
    browser.eval(&format!(
        "$('account-name').value = {}; $('account-key').value = {key}; $('account-secret').value = {secret}; \
         $('account-passphrase').value = {passphrase}; $('account-form').requestSubmit()",
        json!(HOSTILE)
    ));
    assert_eq!(browser.eval("SECRETS.map((part) => $(`account-${part}`).value).join('')"), json!(""));
    browser.until("$('accounts-list').innerText.includes('OKX') && $('account-said').textContent.includes('is added')");
    let all = "JSON.stringify([document.documentElement.outerHTML, { ...localStorage }, { ...sessionStorage }, \
               [...document.querySelectorAll('input')].map((input) => input.value)])";
    let left = browser.eval(all);
    assert!(SECRETS.iter().all(|secret| !left.as_str().unwrap().contains(secret)));

    // Holdings, prices, values: 1.5 bitcoins at 50,000; what has no price is not in it.
    browser.eval("sources.portfolio.every = () => 1");
    browser.until("$('worth').textContent === '$75,000.00'");
    for (section, text) in [("allocation", "100.0 %"), ("allocation", "no price"), ("holdings-list", "NOPRICE"), ("holdings-list", HOSTILE)]
    {
        browser.until(&format!("$({}).innerText.includes({})", json!(section), json!(text)));
    }
    // Prices of 2023 are told as old, and what has none is told too.
    browser.until("$('worth-doubts').textContent.includes('old') && $('worth-doubts').textContent.includes('without a known price')");
    browser.until(&format!("$('accounts-list').innerText.includes({})", json!(HOSTILE)));
    assert_eq!(browser.eval("[document.querySelectorAll('img').length, typeof window.robbed].join()"), json!("0,undefined"));

    // Another currency: those of the node are offered.
    assert_eq!(browser.eval("[...$('currency').options].map((option) => option.value).join()"), json!("usd,eur"));
    browser.eval("$('currency').value = 'eur'; $('currency').dispatchEvent(new Event('change'))");
    browser.until("$('worth').textContent === '€37,500.00'");

    // A phone, in the dark, with everything open and large.
    browser.screen(360, 9000, "dark");
    browser.eval("document.querySelectorAll('#portfolio details').forEach((details) => { details.open = true; })");
    browser.eval("folio.whole.value.amount = 1e15; renderWhole(); $('sure').showModal()");
    assert_eq!(browser.eval(WIDE), json!(""), "nothing is wider than the screen");
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), json!(360));
    browser.eval("$('sure').close(''); soon(['portfolio'])");
    browser.screen(1280, 5000, "dark");

    // Removal asks first, and what is kept is kept.
    click(&mut browser, "#accounts-list button");
    browser.until("$('sure').open && document.activeElement === $('sure-no') && $('sure-text').textContent.includes('<img')");
    click(&mut browser, "#sure-no");
    browser.until("!$('sure').open");
    click(&mut browser, "#accounts-list button");
    click(&mut browser, "#sure-yes");
    browser.until("!$('accounts-empty').hidden && !$('accounts-list').querySelector('tbody tr')");

    // Another portfolio comes and goes.
    browser.eval("$('portfolio-name').value = 'savings'; $('portfolio-form').requestSubmit()");
    browser.until("!$('portfolio-choice').hidden && $('portfolio-choice').options.length === 2");
    browser.eval("$('portfolio-choice').selectedIndex = 1; $('portfolio-choice').dispatchEvent(new Event('change'))");
    browser.until("folio.whole && folio.whole.name === 'savings'");
    click(&mut browser, "#portfolio-remove");
    click(&mut browser, "#sure-yes");
    browser.until("$('portfolio-choice').hidden && folio.whole && folio.whole.name === 'main'");
    // It asks outside for nothing: the node does.
    let at = url(node.http);
    assert!(browser.requests().iter().all(|url| url.starts_with(&at)));

    // Forgotten, and with it all that it showed.
    browser.eval("$('token-form').requestSubmit()");
    browser.until("$('portfolio').hidden && !$('portfolio-off').hidden && !$('accounts-list').textContent && !$('worth').textContent");
    assert_eq!(browser.eval("sessionStorage.getItem('token')"), Value::Null);
}
