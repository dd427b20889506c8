//! The policies that come with the program, as people meet them.
#![allow(clippy::unwrap_used, clippy::panic)]

use postern_policy::{
    Clearance, Dominance, Label, LabelError, Policies,
    lattice::Reason,
    spif::{PRESETS, Spif},
};

fn policies() -> Policies {
    Policies::presets().unwrap()
}

fn marking(text: &str) -> (String, String, String) {
    let policies = policies();
    let marking = policies.marking(&policies.parse_label(text).unwrap()).unwrap();
    (marking.text, marking.short, marking.colour.unwrap_or_default())
}

fn dominates(clearance: &str, label: &str) -> String {
    let policies = policies();
    let (clearance, label) =
        (policies.parse_clearance(clearance).unwrap(), policies.parse_label(label).unwrap());
    policies.dominates(&clearance, Some(&label)).unwrap().to_string()
}

fn join(labels: &[&str]) -> Result<String, LabelError> {
    let policies = policies();
    let labels: Vec<Label> = labels.iter().map(|text| policies.parse_label(text).unwrap()).collect();
    let joined = policies.join(&labels)?.unwrap();
    Ok(policies.format_label(&joined).unwrap())
}

#[test]
fn each_preset_is_read_alone_and_has_a_default_label() {
    for preset in PRESETS {
        let spif = preset.read().unwrap_or_else(|problems| panic!("{}: {problems}", preset.id));
        assert_eq!(Spif::from_toml(&spif.to_toml().unwrap()).unwrap(), spif, "{}", preset.id);
        let alone = Policies::new(vec![spif]).unwrap();
        let label = alone.default_label().unwrap();
        assert!(alone.check(&label).unwrap().is_empty());
    }
}

#[test]
fn every_value_of_every_preset_has_a_text_that_is_read_back() {
    let policies = policies();
    for spif in policies.spifs() {
        for tag in &spif.tags {
            for value in &tag.values {
                let class = spif.classes.last().unwrap();
                let label = Label::new(&spif.name, &class.name).unwrap();
                let label = label.with(&tag.name, tag.kind, [value.name.as_str()]).unwrap();
                let text = policies.format_label(&label).unwrap();
                assert_eq!(policies.parse_label(&text).unwrap(), label, "{text}");
            }
        }
    }
}

#[test]
fn markings_follow_each_policys_conventions() {
    for (label, text, short, colour) in [
        ("US TS//SI, TK//ORCON//NOFORN", "TOP SECRET//SI/TK//ORCON/NOFORN", "TS//SI/TK//OC/NF", "#fce83a"),
        ("US SECRET//REL TO GBR, USA", "SECRET//REL TO USA, GBR", "S//REL TO USA, GBR", "#c8102e"),
        ("US SECRET//REL TO USA, FVEY", "SECRET//REL TO USA, FVEY", "S//REL TO USA, FVEY", "#c8102e"),
        ("US CUI", "CUI", "CUI", "#502b85"),
        (
            "NATO SECRET//ATOMAL//REL TO USA, GBR",
            "NATO SECRET ATOMAL RELEASABLE TO GBR, USA",
            "NS ATOMAL RELEASABLE TO GBR, USA",
            "#c8102e",
        ),
        ("NATO TOP SECRET//BOHEMIA", "COSMIC TOP SECRET BOHEMIA", "CTS BOHEMIA", "#ff8c00"),
        ("UK SECRET//UK EYES ONLY", "UK SECRET - UK EYES ONLY", "S - UK EYES ONLY", "#c8102e"),
        ("UK TS//UK/US EYES ONLY", "UK TOP SECRET - UK/US EYES ONLY", "TS - UK/US EYES ONLY", "#ff8c00"),
        ("UK OS//COMMERCIAL", "UK OFFICIAL-SENSITIVE - COMMERCIAL", "O-S - COMMERCIAL", "#4c2c92"),
        ("Canada PROTECTED B", "PROTECTED B", "PB", "#5e35b1"),
        ("Canada SECRET//CEO", "SECRET//CANADIAN EYES ONLY", "S//CEO", "#c8102e"),
        ("Australia SECRET//AUSTEO", "SECRET//AUSTEO", "S//AUSTEO", "#c8102e"),
        ("Australia SECRET//REL AUS, GBR, USA", "SECRET//REL AUS/GBR/USA", "S//REL AUS/GBR/USA", "#c8102e"),
        (
            "AUS OFFICIAL: Sensitive//Legal privilege",
            "OFFICIAL: Sensitive//Legal privilege",
            "O:S//Legal privilege",
            "#502b85",
        ),
        (
            "CONFIDENTIAL//FINANCE//FOR STAFF",
            "CONFIDENTIAL//FINANCE//FOR STAFF",
            "CONFIDENTIAL//FINANCE//FOR STAFF",
            "#c62828",
        ),
        ("US SECRET//ORIGINATOR ONLY", "SECRET//ORIGINATOR ONLY", "S//ORIGINATOR ONLY", "#c8102e"),
    ] {
        assert_eq!(marking(label), (text.into(), short.into(), colour.into()), "{label}");
    }
}

#[test]
fn labels_are_typed_in_many_ways() {
    let policies = policies();
    for (typed, text) in [
        ("nato secret//rel to gbr, usa//atomal", "NATO SECRET//ATOMAL//REL TO GBR, USA"),
        ("COSMIC TOP SECRET", "NATO TOP SECRET"),
        ("NATO ns", "NATO SECRET"),
        ("NATO: SECRET", "NATO SECRET"),
        ("US S//REL TO USA", "US SECRET//NOFORN"),
        ("US S//rel to: usa, gbr", "US SECRET//REL TO USA, GBR"),
        ("USA TOP SECRET//si", "US TOP SECRET//SI"),
        ("internal", "Company INTERNAL"),
        ("UK SECRET//FIVE EYES ONLY", "UK SECRET//FIVE EYES ONLY"),
        ("AU OFFICIAL: Sensitive", "Australia OFFICIAL: Sensitive"),
        ("Canada TRÈS SECRET", "Canada TOP SECRET"),
        ("NATO SECRET=US SECRET//NOFORN", "NATO SECRET = US SECRET//NOFORN"),
    ] {
        assert_eq!(policies.format_label(&policies.parse_label(typed).unwrap()).unwrap(), text, "{typed}");
    }
    for (typed, error) in [
        ("", "'' is no policy with a classification; policies are Company, US, NATO, UK, Canada, Australia"),
        (
            "SECRET",
            "'SECRET' could be 'US: SECRET' or 'NATO: SECRET' or 'UK: SECRET' or 'Canada: SECRET' or 'Australia: SECRET'",
        ),
        ("NATO SECRET//ATOMIC", "'ATOMIC' is no value, or list of values, of one tag of NATO"),
        ("NATO SECRET//Special Category: ATOMIC", "NATO has no 'ATOMIC' under 'Special Category'"),
        (
            "NATO SECRET//ATOMAL//CRYPTO",
            "tag: 'Special Category' has a category already: put its values into one",
        ),
        ("NATO SECRET//REL TO *", "'NATO SECRET//REL TO *' has '*' in it, which is for clearances"),
        ("NATO SECRET = NATO SECRET", "policy: 'NATO' has a label already"),
    ] {
        assert_eq!(policies.parse_label(typed).unwrap_err().to_string(), error, "{typed}");
    }
}

#[test]
fn a_refusal_says_what_is_missing() {
    for (clearance, label, answer) in [
        ("NATO SECRET//ATOMAL//REL TO GBR", "NATO SECRET//ATOMAL//REL TO USA, GBR", "dominates"),
        (
            "NATO CONFIDENTIAL",
            "NATO SECRET//ATOMAL",
            "class SECRET is above CONFIDENTIAL; ATOMAL is not held",
        ),
        ("NATO SECRET//REL TO DEU", "NATO SECRET//REL TO USA, GBR", "none of REL TO GBR, USA is held"),
        ("US TS", "NATO SECRET", "no clearance under NATO"),
        ("none", "US UNCLASSIFIED", "no clearance under US"),
        ("US TS//SI", "US TS//SI//ORIGINATOR ONLY", "only its originator may see it"),
        ("US TS", "US TS//ORCON", "dominates"),
    ] {
        assert_eq!(dominates(clearance, label), answer, "{clearance} and {label}");
    }
    let policies = policies();
    assert_eq!(policies.dominates(&Clearance::none(), None), Ok(Dominance::Holds));
    let label = policies.parse_label("US TS//SI//ORIGINATOR ONLY").unwrap();
    let uncleared = policies.parse_clearance("US SECRET//SI").unwrap();
    assert!(!policies.dominates(&uncleared, Some(&label)).unwrap().for_originator());
    let cleared = policies.parse_clearance("US TS//SI").unwrap();
    assert_eq!(
        policies.dominates(&cleared, Some(&label)).unwrap(),
        Dominance::Fails(vec![Reason::OriginatorOnly])
    );
}

#[test]
fn a_member_holds_the_groups_it_is_in_and_a_group_is_not_each_member() {
    assert_eq!(dominates("US SECRET//REL TO AUS", "US SECRET//REL TO USA, FVEY"), "dominates");
    assert_eq!(dominates("US SECRET//REL TO DEU", "US SECRET//REL TO USA, NATO"), "dominates");
    assert_eq!(
        dominates("US SECRET//REL TO DEU", "US SECRET//REL TO USA, FVEY"),
        "none of REL TO USA, FVEY is held"
    );
    assert_eq!(dominates("US SECRET//REL TO FVEY", "US SECRET//REL TO USA, FVEY"), "dominates");
    assert_eq!(
        dominates("US SECRET//REL TO FVEY", "US SECRET//REL TO USA, GBR"),
        "none of REL TO USA, GBR is held"
    );
}

#[test]
fn what_is_made_of_two_objects_is_for_those_who_may_see_both() {
    for (labels, joined) in [
        (["US SECRET//REL TO USA, GBR", "US SECRET//REL TO USA, CAN"], "US SECRET//NOFORN"),
        (["US SECRET//NOFORN", "US TS//SI//REL TO USA, FVEY"], "US TOP SECRET//SI//NOFORN"),
        (["US SECRET//REL TO USA, FVEY", "US S//REL TO USA, NATO"], "US SECRET//REL TO USA, CAN, GBR"),
        (
            ["US SECRET//REL TO USA, FVEY//ORCON", "US C//REL TO USA, FVEY"],
            "US SECRET//ORCON//REL TO USA, FVEY",
        ),
        (["NATO SECRET//REL TO UKR", "NATO SECRET//REL TO DEU"], "NATO SECRET//ORIGINATOR ONLY"),
        // A PROTECTED part has no equivalent in the United Kingdom, so nobody there may see the whole by theirs.
        (
            ["Australia SECRET//REL AUS, GBR", "Australia PROTECTED//REL AUS, GBR, NZL"],
            "Australia SECRET//REL AUS, GBR = UK SECRET//ORIGINATOR ONLY",
        ),
        (["PUBLIC", "INTERNAL//FINANCE"], "Company INTERNAL//FINANCE"),
    ] {
        assert_eq!(join(&labels).unwrap(), joined);
    }
    assert_eq!(
        join(&["US SECRET", "NATO SECRET"]).unwrap_err().to_string(),
        "no policy has equivalents of all these labels: US, NATO"
    );
}

#[test]
fn what_is_releasable_to_a_nation_may_be_seen_by_those_it_cleared() {
    assert_eq!(dominates("UK SECRET//UK EYES ONLY", "US SECRET//REL TO USA, GBR"), "dominates");
    assert_eq!(dominates("UK SECRET", "US SECRET//REL TO USA, GBR"), "none of Eyes Only UK, US is held");
    assert_eq!(dominates("UK SECRET//UK EYES ONLY", "US SECRET//NOFORN"), "none of Eyes Only US is held");
    assert_eq!(dominates("UK SECRET//UK EYES ONLY", "US SECRET"), "no clearance under US");
    assert_eq!(
        dominates("UK SECRET//UK EYES ONLY", "US SECRET//SI//REL TO USA, GBR"),
        "no clearance under US"
    );
    assert_eq!(dominates("NATO SECRET//REL TO DEU", "US SECRET//REL TO USA, NATO"), "dominates");
    assert_eq!(dominates("Australia SECRET//REL AUS", "UK SECRET//FIVE EYES ONLY"), "dominates");
    // NATO's own clearance is needed for what is NATO's.
    assert_eq!(dominates("US TS//REL TO USA", "NATO SECRET//REL TO USA"), "no clearance under NATO");
}

#[test]
fn a_joined_label_is_not_released_to_those_who_were_kept_from_a_part() {
    // The second part is not marked as releasable, so the whole is not for the United Kingdom either.
    let policies = policies();
    let labels = ["US SECRET//REL TO USA, GBR", "US SECRET"].map(|text| policies.parse_label(text).unwrap());
    let joined = policies.join(&labels).unwrap().unwrap();
    let british = policies.parse_clearance("UK SECRET//UK EYES ONLY").unwrap();
    assert!(policies.dominates(&british, Some(&labels[0])).unwrap().holds());
    assert!(!policies.dominates(&british, Some(&joined)).unwrap().holds());
}

#[test]
fn labels_are_translated_whether_or_not_that_decides_about_access() {
    let policies = policies();
    let translate = |text: &str, to: &str| {
        let label = policies.equivalent(&policies.parse_label(text).unwrap(), to).unwrap();
        label.map(|label| policies.format_label(&label).unwrap())
    };
    assert_eq!(translate("NATO RESTRICTED", "US").as_deref(), Some("US CUI"));
    assert_eq!(translate("NATO TOP SECRET//REL TO USA, GBR", "UK").as_deref(), Some("UK TOP SECRET//UK, US"));
    assert_eq!(translate("NATO SECRET//ATOMAL", "US"), None);
    assert_eq!(
        translate("Australia PROTECTED//AUSTEO", "US").as_deref(),
        Some("US CONFIDENTIAL//REL TO AUS")
    );
    assert_eq!(translate("PUBLIC", "US"), None);
}

#[test]
fn an_equivalent_label_may_not_be_lower_than_the_policies_say() {
    let policies = policies();
    let refusal =
        |text: &str| policies.resolve(&policies.parse_label(text).unwrap()).unwrap_err().to_string();
    assert_eq!(
        refusal("NATO SECRET = US UNCLASSIFIED"),
        "the equivalent label under US is too low: UNCLASSIFIED is below SECRET"
    );
    assert_eq!(
        refusal("NATO SECRET//ORIGINATOR ONLY = US SECRET"),
        "the equivalent label under US is too low: it is not for the originator only"
    );
    assert_eq!(dominates("US SECRET", "NATO SECRET = US SECRET"), "dominates");
}

#[test]
fn an_events_label_is_at_most_its_rooms() {
    let policies = policies();
    let check = |event: Option<&str>, room: Option<&str>| {
        let parse = |text: Option<&str>| text.map(|text| policies.parse_label(text).unwrap());
        policies.label_at_most(parse(event).as_ref(), parse(room).as_ref()).unwrap().to_string()
    };
    let room = Some("US SECRET//SI//REL TO USA, GBR");
    assert_eq!(check(None, room), "dominates");
    assert_eq!(check(Some("US CONFIDENTIAL//REL TO USA, FVEY"), room), "dominates");
    assert_eq!(
        check(Some("US TS//TK//NOFORN"), room),
        "class TOP SECRET is above SECRET; TK is not in the bound; REL TO USA is narrower than the bound"
    );
    assert_eq!(check(Some("US UNCLASSIFIED"), None), "it has a label and the bound has none");
    assert_eq!(
        check(Some("NATO SECRET"), Some("US SECRET")),
        "it has no equivalent under US, as the bound has"
    );
}

#[test]
fn names_that_no_policy_has_are_errors_when_a_label_is_resolved() {
    let policies = policies();
    let label = |json: &str| serde_json::from_str::<Label>(json).unwrap();
    let refusal = |json: &str| policies.resolve(&label(json)).unwrap_err().to_string();
    assert_eq!(
        refusal(r#"{"policy":"Mars","class":"SECRET"}"#),
        "policy 'Mars' is not loaded; loaded are Company, US, NATO, UK, Canada, Australia"
    );
    assert!(
        refusal(r#"{"policy":"NATO","class":"PUBLIC"}"#)
            .starts_with("NATO has no classification 'PUBLIC'; it has UNCLASSIFIED")
    );
    let wrong_type = r#"{"policy":"NATO","class":"SECRET","cats":[{"tag":"Releasable to","type":"INFORMATIVE","vals":["USA"]}]}"#;
    assert_eq!(refusal(wrong_type), "'Releasable To' of NATO is PERMISSIVE, not INFORMATIVE");
}

#[test]
fn what_was_resolved_under_other_policies_is_comparable_to_nothing() {
    let (before, after) = (policies(), Policies::new(vec![PRESETS[2].read().unwrap()]).unwrap());
    let label = before.resolve(&before.parse_label("NATO SECRET").unwrap()).unwrap();
    let clearance = after.resolve_clearance(&after.parse_clearance("NATO SECRET").unwrap()).unwrap();
    assert!(!clearance.dominates(&label));
    assert_eq!(after.explain(&clearance, &label).to_string(), "the policies have changed since");
    let again = Policies::presets().unwrap().resolve(&before.parse_label("NATO SECRET").unwrap()).unwrap();
    assert_eq!(again, label);
}

#[test]
fn a_completed_label_has_its_marking_and_its_policys_digest() {
    let policies = policies();
    let label: Label = serde_json::from_str(
        r#"{"policy":"nato","class":"ns","cats":[{"tag":"rel to","type":"PERMISSIVE","vals":["usa","GBR"]}],"created":5}"#,
    )
    .unwrap();
    let complete = policies.complete(&label).unwrap();
    assert_eq!(complete.policy(), "NATO");
    assert_eq!(complete.class(), "SECRET");
    assert_eq!(complete.mark(), Some("NATO SECRET RELEASABLE TO GBR, USA"));
    assert_eq!(complete.created(), Some(5));
    assert_eq!(complete.spif(), policies.digest("oid:1.3.26.1.3.1"));
    assert_eq!(policies.resolve(&complete), policies.resolve(&label));
}

#[test]
fn rules_on_what_goes_together_are_for_those_who_give_labels() {
    let policies = policies();
    let broken = |text: &str| policies.check(&policies.parse_label(text).unwrap()).unwrap();
    assert_eq!(broken("NATO SECRET//ATOMAL"), Vec::<String>::new());
    assert_eq!(broken("NATO RESTRICTED//ATOMAL"), ["ATOMAL does not go with RESTRICTED"]);
    assert_eq!(broken("US TS//SI-G"), ["SI-G needs all of ORCON"]);
}

#[test]
fn clearances_are_written_in_text_json_and_toml() {
    let policies = policies();
    for text in ["none", "NATO SECRET//REL TO *//ATOMAL", "NATO SECRET; US TOP SECRET//REL TO USA//SI, TK"] {
        let clearance = policies.parse_clearance(text).unwrap();
        let again = policies.parse_clearance(&policies.format_clearance(&clearance).unwrap()).unwrap();
        assert_eq!(again, clearance, "{text}");
        assert_eq!(Clearance::from_json(&clearance.to_json()).unwrap(), clearance);
    }
    let toml = r#"
        [[grants]]
        policy = "NATO"
        class = "SECRET"
        holds = { "Releasable To" = ["GBR"], "Special Category" = ["ATOMAL"] }
    "#;
    let clearance: Clearance = toml::from_str(toml).unwrap();
    assert_eq!(clearance, policies.parse_clearance("NATO SECRET//ATOMAL//REL TO GBR").unwrap());
    for (json, error) in [
        (
            r#"{"grants":[{"policy":"A","class":"B","more":1}]}"#,
            "has the unknown field 'more'; known are policy, class, holds",
        ),
        (
            r#"{"grants":[{"policy":"A","class":"B"},{"policy":"A","class":"C"}]}"#,
            "grants[1].policy: 'A' has a grant already",
        ),
        (
            r#"{"grants":[{"policy":"A","class":"B","holds":{"T":["x","x"]}}]}"#,
            "grants[0].holds.T: has 'x' twice",
        ),
    ] {
        let refusal = Clearance::from_json(&serde_json::from_str(json).unwrap()).unwrap_err().to_string();
        assert!(refusal.ends_with(error), "{refusal}");
    }
    assert!(policies.resolve_clearance(&policies.parse_clearance("NATO SECRET").unwrap().clone()).is_ok());
}
