//! Mistakes that no single object shows: one of llm-d's cross-object invariants is broken each time, and the answer
//! names the field and holds the fix.

mod seeded;

use std::collections::BTreeSet;

use llmd_render::decode;

use crate::support::{Documents, document, lines};
use seeded::{MISTAKES, Mistake};

const PD: &str = "path: prefill-decode, pathVersion: v1, model: {uri: 'hf://a/b'}";
const WIDE: &str = "path: wide-expert-parallel, pathVersion: v1, model: {uri: 'hf://a/b'}";
const ONE: &str = "path: optimized-baseline, pathVersion: v1, model: {uri: 'hf://a/b'}";
const TIERED: &str = "path: tiered-prefix-cache, pathVersion: v1, model: {uri: 'hf://a/b'}";
const CONFIG: &str = "apiVersion: llm-d.ai/v1alpha1, kind: EndpointPickerConfig";

/// All are told before anything is applied.
#[test]
fn every_seeded_mistake_is_refused_with_its_fix() {
    let mut unseen = Vec::new();
    for Mistake(number, spec, field, fix) in MISTAKES {
        let (spec, long) = spec
            .strip_suffix(" NAME")
            .map_or((*spec, false), |spec| (spec, true));
        let spec = [("PD", PD), ("WIDE", WIDE), ("ONE", ONE), ("TIERED", TIERED)]
            .into_iter()
            .find_map(|(name, text)| {
                let rest = spec.strip_prefix('{')?.strip_prefix(name)?;
                Some(format!("{{{text}{rest}"))
            })
            .unwrap()
            .replace("CONFIG", CONFIG);
        let mut text = document(&spec);
        if long {
            text = text.replace("\"name\":\"x\"", "\"name\":\"a-deployment-of-thirty-characters\"");
        }
        let said = match decode(&text) {
            Err(error) => error.to_string(),
            Ok(_) => match Documents::read(&text).validate(0) {
                Err(errors) => lines(&errors),
                Ok(_) => "nothing".to_owned(),
            },
        };
        if !said
            .lines()
            .any(|line| line.contains(field) && line.contains(fix))
        {
            unseen.push(format!(
                "{number}: {spec}\n   no {field:?} with {fix:?} in {said}"
            ));
        }
    }
    assert!(
        unseen.is_empty(),
        "{} not refused:\n{}",
        unseen.len(),
        unseen.join("\n")
    );
    assert!(MISTAKES.len() >= 60, "{}", MISTAKES.len());
}

#[test]
fn every_invariant_is_broken_at_least_once() {
    let numbers: BTreeSet<u8> = MISTAKES.iter().map(|mistake| mistake.0).collect();
    let missing: Vec<u8> = (1..=24).filter(|number| !numbers.contains(number)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
