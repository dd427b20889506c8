//! Postern and Synapse in one federation, on loopback addresses with TLS: each scenario with the room on either side.
//!
//! Synapse comes from PyPI, in the version that `requirements.txt` pins, and is installed once into the user's cache. Where that fails
//! every test is skipped, and says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod border;
mod devices;
#[path = "../border/enclaves.rs"]
mod enclaves;
mod encrypted;
mod harness;
mod joining;
mod kept_out;
mod outage;
mod seen;
mod sides;
mod talking;
mod versions;

use harness::Scenario;
use std::process::ExitCode;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_postern");

/// Names of functions, each with the function.
macro_rules! scenarios {
    ($($module:ident: $($name:ident)*;)*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), $module::$name as Scenario)),*),*]
    };
}

fn main() -> ExitCode {
    let together = scenarios! {
        joining: a_public_room_is_joined_by_id_or_alias somebody_is_invited_and_comes an_invite_is_declined
            an_invite_is_withdrawn somebody_knocks_and_is_let_in a_knock_is_turned_away_and_may_be_repeated a_knock_is_taken_back
            a_member_of_a_space_joins_a_restricted_room somebody_joins_while_others_talk;
        kept_out: somebody_leaves_and_comes_back somebody_is_kicked somebody_is_banned_and_let_in_again
            a_server_that_a_room_denies_is_kept_out;
        talking: messages_pass_both_ways a_message_is_edited_and_reacted_to messages_are_redacted
            what_was_said_before_is_read typing_and_receipts_are_seen presence_is_seen
            state_is_changed_from_both_sides;
        seen: profiles_are_shown_and_changes_follow rooms_are_found_in_the_directory spaces_are_walked
            files_and_thumbnails_are_fetched;
        versions: rooms_of_every_version_are_shared a_room_is_upgraded_and_followed;
        border: what_is_above_its_clearance_reaches_it_as_copies policies_change_while_it_is_told;
        devices: messages_reach_devices keys_are_queried_and_claimed new_devices_are_told_of;
        encrypted: clients_on_both_servers_talk_encrypted;
    };
    let alone = scenarios! {
        outage: what_one_server_missed_while_it_was_down_is_made_up_for
            messages_to_devices_and_new_devices_wait_for_a_server_that_is_down servers_that_were_parted_agree_afterwards;
        border: what_it_missed_it_pulls_from_another_member;
    };
    harness::run(together, alone)
}
