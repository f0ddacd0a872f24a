//! The suite's teeth: a picker that is right passes, and each of many ways to be wrong is caught by the case that is
//! there for it.

use std::net::SocketAddr;
use std::time::Duration;

use llmd_epp_conformance::case::{Profile, Selected};
use llmd_epp_conformance::report::{CaseReport, Verdict};
use llmd_epp_conformance::rig::Running;
use llmd_epp_conformance::run::{Options, Target, run};
use llmd_epp_conformance::suite::cases;

use crate::stub::{Fault, Stub};

/// Each fault with a case that catches it.
const FAULTS: &[(Fault, &str)] = &[
    (Fault::DestinationUnderAnotherName, "a-request-is-routed"),
    (Fault::DestinationByName, "a-request-is-routed"),
    (Fault::DestinationOutsideThePool, "a-request-is-routed"),
    (Fault::DestinationAppended, "a-request-is-routed"),
    (
        Fault::DestinationOnlyIfAbsent,
        "a-client-cannot-choose-the-destination",
    ),
    (Fault::NoMetadata, "a-request-is-routed"),
    (Fault::MetadataDiffers, "a-request-is-routed"),
    (Fault::NoContentLength, "a-request-is-routed"),
    (Fault::WrongContentLength, "a-chat-request-is-routed"),
    (
        Fault::ContentLengthWithoutBody,
        "a-request-without-body-is-routed-on-its-head",
    ),
    (Fault::NoClearRouteCache, "a-request-is-routed"),
    (Fault::ClearRouteCacheInResponse, "a-response-in-two-chunks"),
    (Fault::LongChunks, "a-long-body-is-streamed-back-in-pieces"),
    (Fault::EndOnEveryChunk, "a-long-body-is-streamed-back-in-pieces"),
    (Fault::NoEnd, "a-request-is-routed"),
    (Fault::BodyWrittenAnew, "no-rewrite-leaves-any-json-as-it-is"),
    (Fault::BodyReplaced, "a-request-is-routed"),
    (Fault::BodyLost, "a-request-is-routed"),
    (Fault::ContinueAndReplace, "a-request-is-routed"),
    (Fault::BodyBeforeHead, "a-request-is-routed"),
    (Fault::HeadTooEarly, "the-head-waits-for-the-body"),
    (Fault::SecondEndAnswered, "a-second-end-of-the-body-is-ignored"),
    (Fault::RequestTrailersIgnored, "trailers-end-a-body"),
    (Fault::UpgradeWaits, "an-upgrade-is-answered-on-its-head"),
    (Fault::WrongStatus, "a-subset-of-strangers-has-nobody"),
    (Fault::WrongReason, "a-subset-of-strangers-has-nobody"),
    (Fault::NoReason, "a-subset-of-strangers-has-nobody"),
    (Fault::BareErrorText, "no-model"),
    (Fault::WrongCode, "no-model"),
    (Fault::AnswerAfterRefusal, "no-model"),
    (Fault::InvalidJsonAccepted, "no-json"),
    (Fault::MissingModelAccepted, "no-model"),
    (Fault::InputsEchoed, "inputs-are-not-sent-on"),
    (Fault::HeaderInvented, "a-request-is-routed"),
    (Fault::TextValues, "a-request-is-routed"),
    (Fault::TextValuesUnread, "values-in-the-text-field"),
    (Fault::NoRequestId, "a-missing-request-id-is-made"),
    (Fault::RoutingHeadersKept, "a-client-cannot-set-routing-outputs"),
    (Fault::SubsetIgnored, "a-subset-of-one-is-that-one"),
    (Fault::EmptySubsetIsAll, "an-empty-subset-has-nobody"),
    (
        Fault::SubsetComparesPorts,
        "a-subset-compares-addresses-without-ports",
    ),
    (
        Fault::SubsetOfBodilessIgnored,
        "a-request-without-body-follows-the-subset",
    ),
    (Fault::QueryIsPath, "a-query-is-not-part-of-the-path"),
    (Fault::AliasWins, "the-newer-rewrite-header-wins"),
    (
        Fault::InnerModelRewritten,
        "a-model-inside-another-object-is-not-the-model",
    ),
    (Fault::ModelNotRestored, "the-client-s-model-name-is-put-back"),
    (
        Fault::ModelNotRestoredOverMessages,
        "a-model-name-over-two-messages-is-put-back",
    ),
    (Fault::OtherModelsRestored, "other-names-in-a-response-stay"),
    (Fault::NoMarker, "a-response-in-two-chunks"),
    (Fault::ResponseWithoutEnd, "a-response-in-two-chunks"),
    (
        Fault::ResponseEndBeforeTrailers,
        "response-trailers-end-a-response",
    ),
    (
        Fault::ResponseTrailersUnanswered,
        "response-trailers-end-a-response",
    ),
    (Fault::ResponseHeld, "a-plain-response-passes-while-it-comes"),
    (Fault::ResponseLongChunks, "a-long-response-comes-back-in-pieces"),
    (Fault::FailsAtClose, "a-request-is-routed"),
];

/// Three addresses where nobody needs to listen.
fn endpoints() -> Vec<(String, SocketAddr)> {
    ["a", "b", "c"]
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let host = [127, 0, 0, u8::try_from(index + 1).expect("small")];
            ((*name).to_owned(), SocketAddr::from((host, 8000)))
        })
        .collect()
}

async fn play(fault: Option<Fault>, wanted: impl Fn(&Selected) -> bool) -> Vec<CaseReport> {
    let endpoints = endpoints();
    let addresses = endpoints.iter().map(|(_, address)| *address).collect();
    let stub = Stub::start(addresses, fault).await;
    let options = Options {
        target: Target::Running(Running {
            ext_proc: stub.address,
            with_tls: false,
            metrics: None,
            endpoints,
        }),
        profile: Profile::Llmd,
        jobs: 4,
        patience: if fault.is_some() {
            Duration::from_millis(500)
        } else {
            Duration::from_secs(10)
        },
    };
    let cases = cases()
        .expect("readable cases")
        .into_iter()
        .filter(wanted)
        .collect();
    run(cases, options).await.expect("a run")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picker_without_fault_passes_every_portable_case() {
    let portable = |case: &Selected| case.setup.is_portable() && !case.setup.is_own;
    let results = play(None, portable).await;
    assert!(results.len() > 60, "{} portable cases", results.len());
    let failed: Vec<&CaseReport> = results
        .iter()
        .filter(|case| case.verdict != Verdict::Passed)
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_caught() {
    let mut missed = Vec::new();
    for (fault, case) in FAULTS {
        let id = format!("protocol/{case}");
        let results = play(Some(*fault), |case| case.id == id).await;
        match &results[..] {
            [one] if matches!(one.verdict, Verdict::Failed { .. }) => {}
            other => missed.push((fault, other.to_vec())),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[tokio::test]
async fn cases_that_need_a_picker_of_their_own_are_skipped_on_a_running_one() {
    let results = play(None, |case| case.id == "scorers/queue").await;
    assert!(
        matches!(results[0].verdict, Verdict::Skipped { .. }),
        "{results:?}"
    );
}
