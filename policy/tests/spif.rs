//! Policy files: what is wrong with one is said, all of it, and XML SPIFs are read.
#![allow(clippy::unwrap_used, clippy::panic)]

use postern_policy::{
    Label, Policies, TagType,
    spif::{Direction, Need, Spif},
};

fn problems(toml: &str) -> Vec<String> {
    Spif::from_toml(toml).unwrap_err().0.iter().map(ToString::to_string).collect()
}

#[test]
fn all_that_is_wrong_with_a_policy_is_said_with_its_path() {
    let found = problems(
        r#"
        name = "A: B"
        oid = "9.1"
        default = "NOWHERE"
        classes = [
          { name = "LOW", rank = 1, colour = "green" },
          { name = "low", rank = 1 },
          { name = "MID//HIGH", rank = 2, requires = [{ of = [{ tag = "Nope" }] }] },
        ]
        tags = [
          { name = "Code", type = "RESTRICTIVE", values = ["A", "A", { name = "B", members = ["A"] }] },
          { name = "For", type = "PERMISSIVE", most = 0, values = [
            { name = "X", classes = ["TOP"] },
            { name = "G", members = ["X", "Z"] },
            { name = "H", members = ["G"], excludes = [{ tag = "Code", value = "C" }] },
          ] },
        ]
        [[equivalences]]
        policy = "Other"
        classes = {}
        values = { Code = { A = "B" } }
        "#,
    );
    let expected = [
        "name: has ':' in it, which ends a policy's name in a label's text",
        "oid: '9.1' is no object identifier like 1.3.26.1.3.1",
        "classes[0].colour: 'green' is no colour of the form #rrggbb",
        "classes[1].name: 'low' is there already, at classes[0].name",
        "classes[1].rank: 1 is the rank of 'LOW' too: one is above the other",
        "classes[2].name: has '//' in it, which separates parts of a label's text",
        "classes[2].requires[0].of[0].tag: 'Nope' is no tag of this policy",
        "tags[0].values[1].name: 'A' is there already, at tags[0].values[0].name",
        "tags[0].values[2].members: are for values of permissive tags only",
        "tags[1].most: is 0: leave the tag out instead",
        "tags[1].values[0].classes: 'TOP' is no classification of this policy",
        "tags[1].values[1].members: 'Z' is no value of 'For'",
        "tags[1].values[2].excludes[0].value: 'C' is no value of 'Code'",
        "tags[1].values[2].members: 'G' is a group itself: list its members",
        "equivalences[0].values.Code: is no tag under `tags` of the equivalence",
        "equivalences[0].classes: is empty: nothing would have an equivalent",
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_unknown_field_and_a_wrong_default_are_refused() {
    let unknown = problems("name = \"P\"\nclasses = [{ name = \"A\", rank = 0, color = \"red\" }]");
    assert!(unknown[0].contains("unknown field `color`"), "{unknown:?}");
    assert_eq!(
        problems("name = \"P\"\ndefault = \"B\"\nclasses = [{ name = \"A\", rank = 0 }]"),
        ["default: 'B' is no policy with a classification; policies are P"]
    );
}

#[test]
fn an_equivalence_that_would_let_in_more_is_refused() {
    let one = r#"
        name = "One"
        classes = [{ name = "LOW", rank = 0 }, { name = "HIGH", rank = 1 }]
        tags = [
          { name = "A", type = "PERMISSIVE", values = ["X"] },
          { name = "B", type = "PERMISSIVE", values = ["X"] },
          { name = "C", type = "RESTRICTIVE", values = ["X"] },
        ]
        [[equivalences]]
        policy = "Two"
        requires = ["D"]
        classes = { LOW = "HIGH", HIGH = "LOW", TOP = "LOW" }
        tags = { A = "Z", B = "Z", C = "Y" }
    "#;
    let two = r#"
        name = "Two"
        classes = [{ name = "LOW", rank = 0 }, { name = "HIGH", rank = 1 }]
        tags = [{ name = "Z", type = "PERMISSIVE", values = ["X"] }, { name = "Y", type = "INFORMATIVE", values = ["X"] }]
    "#;
    let found =
        Policies::new(vec![Spif::from_toml(one).unwrap(), Spif::from_toml(two).unwrap()]).unwrap_err();
    let found: Vec<String> = found.0.iter().map(ToString::to_string).collect();
    let expected = [
        "One: equivalences[0].classes: 'TOP' is no classification of One",
        "One: equivalences[0].classes: puts a higher classification below a lower one",
        "One: equivalences[0].tags: 'A' and 'B' both become 'Z', which would let in more",
        "One: equivalences[0].tags: 'C' is RESTRICTIVE and 'Y' is INFORMATIVE: both have to be of one type",
        "One: equivalences[0].requires: 'D' is no tag of One",
    ];
    assert_eq!(found, expected);
    // Without the other policy there is nothing to compare with.
    assert!(Policies::new(vec![Spif::from_toml(one).unwrap()]).is_ok());
}

#[test]
fn two_policies_of_one_name_are_refused() {
    let policy = || Spif::from_toml("name = \"P\"\nclasses = [{ name = \"A\", rank = 0 }]").unwrap();
    let error = Policies::new(vec![policy(), policy()]).unwrap_err().to_string();
    assert_eq!(error, "P: 'P' is the name of two policies");
}

const SHIP: &str = include_str!("../../fuzz/seeds/spif/ship.xml");

#[test]
fn an_xml_spif_is_read_as_the_policy_it_describes() {
    let import = Spif::from_xml(SHIP).unwrap();
    let spif = import.spif;
    assert_eq!((spif.name.as_str(), spif.oid.as_deref()), ("Ship", Some("2.999.1")));
    let classes: Vec<_> = spif.classes.iter().map(|class| (class.name.as_str(), class.rank)).collect();
    assert_eq!(classes, [("OPEN", 1), ("CREW", 5)]);
    assert_eq!(spif.classes[0].colour.as_deref(), Some("#008000"));
    assert_eq!(spif.classes[1].marking.as_deref(), Some("Ship CREW & OFFICERS"));
    assert_eq!(spif.classes[1].requires[0].need, Need::Any);
    assert_eq!(spif.classes[1].requires[0].of[0].value.as_deref(), Some("BRIDGE"));
    let tags: Vec<_> = spif.tags.iter().map(|tag| (tag.name.as_str(), tag.kind, tag.most)).collect();
    let expected = [
        ("For deck", TagType::Permissive, None),
        ("Cargo", TagType::Restrictive, Some(1)),
        ("Until", TagType::Informative, None),
    ];
    assert_eq!(tags, expected);
    assert_eq!(spif.tags[0].values[1].classes, ["CREW"]);
    assert_eq!(spif.tags[1].values[0].classes, ["CREW"]);
    assert!(spif.tags[1].values[1].obsolete);
    let outward = spif.equivalences.iter().find(|one| one.direction == Direction::Out).unwrap();
    assert_eq!((outward.policy.as_str(), outward.access), ("oid:2.999.2", false));
    assert_eq!(outward.classes["CREW"], "lacv:7");
    assert_eq!(outward.values["For deck"]["BRIDGE"], "lacv:3");
    assert!(import.notes.iter().any(|note| note.contains("'date' of 'Until' is for free text")));

    let harbour = r#"
        name = "Harbour"
        oid = "2.999.2"
        classes = [{ name = "STAFF", rank = 3, lacv = "7" }]
        tags = [{ name = "Pier", type = "PERMISSIVE", oid = "2.999.2.1", values = [{ name = "WEST", lacv = "3" }] }]
    "#;
    let policies = Policies::new(vec![spif, Spif::from_toml(harbour).unwrap()]).unwrap();
    let label = policies.parse_label("Ship CREW//BRIDGE, ENGINE").unwrap();
    assert_eq!(policies.marking(&label).unwrap().text, "Ship CREW & OFFICERS - FOR BRIDGE, ENGINE");
    let theirs = policies.equivalent(&label, "Harbour").unwrap().unwrap();
    assert_eq!(policies.format_label(&theirs).unwrap(), "Harbour STAFF//WEST");
    let open = policies.parse_label("Ship OPEN//GOLD").unwrap();
    assert_eq!(policies.check(&open).unwrap(), ["GOLD does not go with OPEN"]);
}

#[test]
fn an_xml_file_that_is_hostile_or_no_spif_is_refused() {
    let refusal = |xml: &str| Spif::from_xml(xml).unwrap_err().to_string();
    assert_eq!(
        refusal(include_str!("../../fuzz/seeds/spif/entities.xml")),
        "line 1: has a document type, which is not allowed"
    );
    assert_eq!(refusal("<a>"), "ends within an element");
    assert_eq!(refusal(""), "has no element");
    assert_eq!(refusal("<html/>"), "is an XML file of 'html', not of SPIF");
    assert_eq!(refusal("<SPIF>&other;</SPIF>"), "line 1: refers to an entity, which is not allowed");
    assert_eq!(refusal("<SPIF/><SPIF/>"), "line 1: has more than 20000 elements, or two roots");
    assert!(refusal(&"<SPIF>".repeat(100)).contains("within one another"));
    assert!(refusal(&format!("<SPIF>{}</SPIF>", "<a/>".repeat(60_000))).contains("more than 20000 elements"));
    assert!(refusal(&" ".repeat(3 << 20)).contains("more than 2097152"));
    assert!(refusal("<SPIF>\n<a></b></SPIF>").starts_with("line 2: is not well-formed"));
    assert_eq!(
        refusal("<SPIF/>"),
        "securityPolicyId: lacks the attribute 'name'\nsecurityPolicyId: lacks the attribute 'id'"
    );
}

/// The form of the published NATO file: the policy stands before the classification, "COSMIC" in its place for the highest,
/// and the context in its place when there is one.
#[test]
fn markings_that_replace_the_policy_are_read() {
    let mark =
        |phrase: &str| format!("<markingData phrase='{phrase}'><code>replacePolicy</code></markingData>");
    let xml = format!(
        "<SPIF><securityPolicyId name='Pact' id='2.999.5'/><securityClassifications>\
         <securityClassification name='SECRET' lacv='4' hierarchy='4'/>\
         <securityClassification name='TOP SECRET' lacv='5' hierarchy='5'>{}</securityClassification>\
         </securityClassifications><securityCategoryTagSets><securityCategoryTagSet name='Context' id='2.999.5.1'>\
         <securityCategoryTag name='Context' tagType='permissive'>\
         <tagCategory name='FORCE' lacv='1'>{}</tagCategory></securityCategoryTag></securityCategoryTagSet>\
         </securityCategoryTagSets></SPIF>",
        mark("HIGHEST"),
        mark("Pact/FORCE")
    );
    let policies = Policies::new(vec![Spif::from_xml(&xml).unwrap().spif]).unwrap();
    let marking = |text: &str| policies.marking(&policies.parse_label(text).unwrap()).unwrap().text;
    assert_eq!(marking("Pact SECRET"), "Pact SECRET");
    assert_eq!(marking("Pact SECRET//FORCE"), "Pact/FORCE SECRET");
    assert_eq!(marking("Pact TOP SECRET"), "HIGHEST TOP SECRET");
}

#[test]
fn a_digest_is_of_the_content_not_of_the_file() {
    let spif = Spif::from_toml("name = \"P\"\nclasses = [{ name = \"A\", rank = 0 }]").unwrap();
    let json = Spif::from_json(r#"{"classes":[{"rank":0,"name":"A","aliases":[]}],"name":"P"}"#).unwrap();
    assert_eq!(spif.digest(), json.digest());
    // Of {"classes":[{"name":"A","rank":0}],"name":"P"}.
    assert_eq!(spif.digest(), "sha256:8adf5068c535cd5784672d2be64b880daf4d4e85ec5de593d5e700c1c7a310fc");
    assert!(Label::new("P", "A").unwrap().with_spif(&spif.digest()).is_ok());
    let other = Spif::from_toml("name = \"P\"\nclasses = [{ name = \"A\", rank = 1 }]").unwrap();
    assert_ne!(spif.digest(), other.digest());
}

#[test]
fn references_to_more_tags_and_classes_than_a_policy_may_have_are_not_written_out() {
    let classes: String = (0..3_000)
        .map(|n| format!(r#"<securityClassification name="C{n}" lacv="{n}" hierarchy="{n}"/>"#))
        .collect();
    let tags: String = (0..3_000)
        .map(|n| {
            format!(
                r#"<securityCategoryTag name="T{n}" tagType="restrictive"><tagCategory name="V" lacv="0"><excludedClass>C0</excludedClass></tagCategory></securityCategoryTag>"#
            )
        })
        .collect();
    let wanted = r#"<categoryGroup tagSetRef="S"/>"#.repeat(5_000);
    let xml = format!(
        r#"<SPIF><securityPolicyId name="P" id="1.2.3"/><securityClassifications>
        <securityClassification name="C" lacv="9999" hierarchy="9999"><requiredCategory operation="onlyOne">{wanted}</requiredCategory></securityClassification>
        {classes}</securityClassifications>
        <securityCategoryTagSets><securityCategoryTagSet name="S" id="1.2.4">{tags}</securityCategoryTagSet></securityCategoryTagSets></SPIF>"#
    );
    let problems = Spif::from_xml(&xml).unwrap_err().to_string();
    assert!(problems.contains("is one too many, 64 are allowed"), "{problems}");
}

/// The blocks of the manual in this language.
fn manual(language: &str) -> impl Iterator<Item = &'static str> {
    let fence = format!("```{language}\n");
    let after = include_str!("../../docs/labels.md").split(fence.as_str()).skip(1);
    after.filter_map(|text| text.split("```").next()).collect::<Vec<_>>().into_iter()
}

#[test]
fn the_manuals_examples_are_right() {
    let policies = Policies::presets().unwrap();
    let mut json = manual("json");
    let label: Label = serde_json::from_str(json.next().unwrap()).unwrap();
    let complete = policies.complete(&label).unwrap();
    assert_eq!(complete.mark(), label.mark());
    let clearance: postern_policy::Clearance = serde_json::from_str(json.next().unwrap()).unwrap();
    let mut toml = manual("toml");
    assert_eq!(toml::from_str::<postern_policy::Clearance>(toml.next().unwrap()).unwrap(), clearance);
    assert_eq!(policies.parse_clearance("NATO SECRET//ATOMAL//REL TO GBR").unwrap(), clearance);
    let harbour = Spif::from_toml(toml.next().unwrap()).unwrap();
    let alone = Policies::new(vec![harbour.clone()]).unwrap();
    let label = alone.parse_label("ST//TEA//FOR NORTH, EAST").unwrap();
    assert_eq!(alone.marking(&label).unwrap().text, "HARBOUR STAFF//TEA//FOR NORTH, EAST");
    let both = Policies::new(vec![harbour, Spif::from_xml(SHIP).unwrap().spif]).unwrap();
    let label = both.parse_label("Harbour STAFF//NORTH").unwrap();
    assert_eq!(both.equivalent(&label, "Ship").unwrap().unwrap().to_string(), "Ship CREW//For deck: BRIDGE");
}
