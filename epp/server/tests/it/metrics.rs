//! Every metric has the name, type, labels and buckets that `docs/epp-metrics.md` says.

mod exposition;
mod journey;
mod reference;

use exposition::Page;
use reference::Reference;

#[tokio::test]
async fn the_reference_says_what_a_picker_under_load_shows() {
    let page = journey::everything().await;
    let reference = Reference::read();
    let mut wrong = Vec::new();
    for (name, family) in &page.families {
        match reference.families.get(name) {
            None => wrong.push(format!("{name} is not in the reference: {family:?}")),
            Some(expected) if expected.kind != family.kind => {
                wrong.push(format!("{name} is a {}, not a {}", family.kind, expected.kind));
            }
            Some(expected) if expected.labels != family.labels => wrong.push(format!(
                "{name} has the labels {:?}, not {:?}",
                family.labels, expected.labels
            )),
            Some(expected) if expected.buckets != family.buckets => wrong.push(format!(
                "{name} has the buckets {:?}, not {:?}",
                family.buckets, expected.buckets
            )),
            Some(expected) if !family.help.starts_with(&expected.help) => {
                wrong.push(format!("{name} has the help text {:?}", family.help));
            }
            Some(_) => {}
        }
    }
    for (name, expected) in &reference.families {
        if !expected.is_rare && !page.families.contains_key(name) {
            wrong.push(format!("{name} is in the reference and not shown"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[tokio::test]
async fn deprecated_names_are_gone_when_they_are_switched_off() {
    let page = journey::aggregated("--enable-deprecated-metrics=false").await;
    let old: Vec<&String> = page
        .families
        .keys()
        .filter(|name| !name.starts_with("llm_d_epp_") && !name.starts_with("llmd_"))
        .collect();
    assert!(old.is_empty(), "{old:?}");
    assert!(page.families.len() > 20);
}

/// What dashboards, alerts and autoscalers of the field ask for.
#[tokio::test]
async fn queries_of_the_field_return_series() {
    let page = journey::everything().await;
    let mut empty = Vec::new();
    for query in reference::queries() {
        for selector in exposition::selectors(&query.text) {
            if page.select(&selector).is_empty() {
                empty.push(format!("{} ({}): {selector:?}", query.text, query.source));
            }
        }
    }
    assert_eq!(empty, [""; 0]);
}

/// Two pages of one process, or of two, as one.
fn merged(pages: impl IntoIterator<Item = Page>) -> Page {
    let mut all = Page::default();
    for page in pages {
        all.families.extend(page.families);
        all.samples.extend(page.samples);
    }
    all
}
