//! The suite over real sockets, mounted once for each runtime.
//!
//! The cases are in `served/`, one file per subject. A case that is missing in the list below is dead code, which the
//! compiler reports.

mod served;

/// Makes `mio::files::media_types` and so on, a test for each case and runtime.
macro_rules! suite {
    (@mount $module:ident $runtime:ident $($subject:ident { $($case:ident)+ })+) => {
        mod $module {
            $(mod $subject {
                $(#[test]
                fn $case() {
                    crate::served::$subject::$case(testkit::Runtime::$runtime);
                })+
            })+
        }
    };
    ($($cases:tt)*) => {
        suite!(@mount mio Mio $($cases)*);
        suite!(@mount std Std $($cases)*);
        suite!(@mount smol Smol $($cases)*);
    };
}

suite! {
    bodies {
        a_body_is_passed_over
        a_late_body
        a_large_unwanted_body
        an_announced_gigabyte
        no_continue_for_nothing
        after_a_refused_expectation
        broken_chunks
        chunk_extensions
    }
    cgi_answers {
        the_fields_of_an_answer
        status
        lengths
        head
        local_redirects
        client_redirects
        garbage
        wrong_lines
        no_head
        the_page_of_cgitb
        long_heads
        whole_answers
        on_one_connection
        http_1_0
    }
    cgi_bodies {
        uploads
        full_duplex
        much_in_little_memory
        chunked_uploads
        chunked_refused
        too_large
        expectations
        an_early_answer
        a_client_that_does_not_read
        a_script_that_does_not_read
        a_reset_while_nothing_moves
        half_a_body
    }
    cgi_forms {
        python
        perl
        php
    }
    cgi_processes {
        a_crash_before_the_head
        a_crash_before_the_head_is_logged
        exit_codes
        timeouts
        a_stubborn_script
        bodies_that_do_not_come
        spools_share_their_room
        no_privileges
        the_launcher_is_killed
        another_tree_in_place_of_the_root
        output_closed
        left_behind
        a_noisy_script
        two_hundred_at_once
        others_are_served
        no_more_than
        one_after_another
        the_client_is_gone
        the_client_is_silent
        half_closed
        half_closed_for_long
        nothing_can_be_sent
        output_is_not_read
        places_for_others
        shutdown
        a_running_script_ends_with_the_server
        shutdown_is_bounded
        a_second_signal
        out_of_descriptors
    }
    cgi_programs {
        php
        git
    }
    cgi_requests {
        the_environment
        claims
        authorization_is_passed
        fields_of_the_body
        places
        variables_for_scripts
        directory_and_arguments
        paths
        no_source
        hidden_scripts
        refusals
        methods
        directories
        the_whole_root
    }
    conditional {
        times_that_mean_nothing
        tags_of_content
        no_tags
        if_modified_since
        if_none_match
        if_match
        if_unmodified_since
        precedence
        not_for_other_answers
        of_an_index_page
        tags
        a_connection_continues_after_a_304
    }
    draining {
        requests_that_have_arrived
        a_pipeline_that_has_arrived
        a_part_that_has_arrived
        a_body_on_its_way
        a_moment_for_the_silent
        a_peer_that_stays
        a_peer_that_goes_on
        no_grace
        at_the_end_of_keep_alive
        signals_that_do_not_end
        hangup_looks_the_root_up
        a_log_that_hangs
        exchanges_in_progress_are_printed
        health_and_delay
    }
    errors {
        not_found
        the_fields_of_a_closing_error
        other_methods
        options
        versions
        malformed_request_lines
        host
        targets
        expectations
    }
    files {
        every_size_arrives_complete
        a_hundred_megabytes_arrive_complete
        parallel_downloads_do_not_mix
        the_fields_of_a_file
        head_is_get_without_a_body
        a_file_that_grows_is_sent_as_announced
        media_types
        media_types_by_flags
        a_compressed_image
        index_pages
        index_pages_that_may_not_be_read
        index_pages_behind_links
    }
    freshness {
        a_replaced_file
        a_rewritten_file
        a_rewritten_file_with_its_old_date
        a_tag_changes_with_the_content
        a_name_that_changes_its_meaning
        a_replaced_folder
        a_large_file
        a_file_that_shrinks
        a_file_that_is_rewritten
        a_file_that_is_rewritten_at_the_end
        a_file_that_is_rewritten_after_it_was_sent
        ranges_of_a_file_that_is_rewritten
        a_file_that_is_deleted
    }
    hostile {
        dripping_heads
        dripping_bodies
        dripping_chunks
        responses_that_are_not_read
        pipelines_that_are_not_read
        a_flood_of_connections
        noise
    }
    limits {
        the_request_line
        a_huge_method
        a_field_line
        the_number_of_fields
        the_whole_head
        chunk_lines_and_trailers
        blank_lines
        connections
        idle_connections_are_closed_to_make_room
        no_request_is_lost_to_a_new_client
        unfinished_heads_are_closed_to_make_room
        memory
        memory_of_listings
    }
    listing {
        the_page_is_exact
        the_title_is_escaped
        links_to_hostile_names_work
        hostile_directories_can_be_walked
        three_thousand_entries_in_order
        special_files_are_listed
        a_listing_is_fresh
    }
    log {
        the_form
        control_characters
        long_lines
        parallel_requests
        quiet
        no_panic_and_no_trace
        a_pipe_that_is_not_read
    }
    pace {
        a_slow_reader
        a_slow_reader_of_a_listing
        a_thousand_idle_connections
        single_bytes_beside_others
    }
    paths {
        decoding
        encoded_nul
        traversal
        symbolic_links
        dotfiles
        hidden_dotfiles
        special_files
        symbolic_link_policies
        names_of_any_bytes
    }
    persistence {
        http_1_1
        http_1_0
        the_protocol_flag
        half_close
        an_end_without_a_request
        single_bytes
        blank_lines_before_a_request
        upgrade_is_ignored
    }
    pipelining {
        fifty_in_order
        fifty_mixed
        fifty_split_at_random
        nothing_after_a_close
        large_responses_in_a_pipeline
        ten_thousand_requests
    }
    ranges {
        single
        not_satisfiable
        of_an_empty_file
        not_a_range
        multiple
        coalesced
        many
        if_range
        conditions_come_first
        only_for_files
        large
    }
    redirect {
        to_the_slash
        never_to_another_server
        no_field_is_injected
    }
    resources {
        aborted_downloads_leave_nothing
        interrupted_requests_leave_nothing
        memory_does_not_grow_with_the_file
        idleness
        out_of_descriptors
    }
    root {
        a_link_that_is_changed
        a_link_that_is_changed_with_scripts
        a_directory_that_is_recreated
        the_current_directory
        a_root_that_changes_its_meaning
    }
    rules {
        fields
        cors
        isolation
        redirects
        clean_urls
        applications
        error_pages
        refused_files_stay_refused
        index_pages
        pages_of_the_server
    }
    shutdown {
        a_download_is_finished
        nothing_in_progress
        a_stalled_client_is_cut
        half_a_request
        interrupt
        a_second_signal
    }
    smuggling {
        lengths
        codings
        fields
        line_ends
        a_lone_newline_is_answered_at_once
        request_lines
        in_a_pipeline
    }
    timeouts {
        a_head_without_an_end
        a_dripping_head
        keep_alive
        keep_alive_is_not_the_head_timeout
        a_body_without_an_end
        a_response_that_is_not_read
        timers_of_many_connections
    }
}

/// Rules that change none of the responses below, but that are looked at for each of them.
const RULES: &[&str] = &[
    "--header=X-Rule: 1",
    "--header=*.rule=Content-Type: text/x-rule",
    "--header-always=X-Rules: 1",
    "--cache=60",
    "--cors=http://rule.example",
    "--isolate",
    "--nosniff",
    "--redirect=/rule/*=/ruled/*",
    "--index=index.html",
    "--index=index.htm",
    "--clean-urls",
    "--spa=rule.html",
    "--error-page=404=404.rule.html",
    "--error-page=500=500.rule.html",
];

/// Makes `with_rules::files::media_types` and so on: the same with all rules at once that a site may have without its
/// paths being others. Rules are the same on each runtime, so that one is enough.
macro_rules! ruled_suite {
    ($($subject:ident { $($case:ident)+ })+) => {
        mod with_rules {
            $(mod $subject {
                $(#[test]
                fn $case() {
                    let case = || crate::served::$subject::$case(testkit::Runtime::Mio);
                    testkit::server::with_more_flags(crate::RULES, case);
                })+
            })+
        }
    };
}

// Without the cases that compare all fields of a head, or request a page with its extension.
ruled_suite! {
    bodies {
        a_body_is_passed_over
        a_large_unwanted_body
        an_announced_gigabyte
        no_continue_for_nothing
        after_a_refused_expectation
        broken_chunks
        chunk_extensions
    }
    cgi_answers {
        the_fields_of_an_answer
        status
        lengths
        head
        local_redirects
        client_redirects
        garbage
        wrong_lines
        no_head
        the_page_of_cgitb
        long_heads
        whole_answers
        on_one_connection
        http_1_0
    }
    conditional {
        times_that_mean_nothing
        tags_of_content
        no_tags
        if_modified_since
        if_none_match
        if_match
        if_unmodified_since
        precedence
        not_for_other_answers
        tags
        a_connection_continues_after_a_304
    }
    errors {
        other_methods
        options
        versions
        malformed_request_lines
        host
        targets
        expectations
    }
    files {
        every_size_arrives_complete
        parallel_downloads_do_not_mix
        head_is_get_without_a_body
        a_file_that_grows_is_sent_as_announced
        media_types_by_flags
        a_compressed_image
        index_pages
        index_pages_that_may_not_be_read
        index_pages_behind_links
    }
    listing {
        the_page_is_exact
        the_title_is_escaped
        links_to_hostile_names_work
        hostile_directories_can_be_walked
        three_thousand_entries_in_order
        special_files_are_listed
        a_listing_is_fresh
    }
    paths {
        decoding
        encoded_nul
        traversal
        symbolic_links
        dotfiles
        hidden_dotfiles
        special_files
        symbolic_link_policies
        names_of_any_bytes
    }
    persistence {
        http_1_1
        http_1_0
        the_protocol_flag
        half_close
        an_end_without_a_request
        blank_lines_before_a_request
        upgrade_is_ignored
    }
    pipelining {
        fifty_in_order
        fifty_mixed
        fifty_split_at_random
        nothing_after_a_close
        large_responses_in_a_pipeline
        ten_thousand_requests
    }
    ranges {
        single
        not_satisfiable
        of_an_empty_file
        not_a_range
        multiple
        coalesced
        many
        if_range
        conditions_come_first
        only_for_files
        large
    }
    redirect {
        to_the_slash
        never_to_another_server
        no_field_is_injected
    }
    smuggling {
        lengths
        codings
        fields
        line_ends
        a_lone_newline_is_answered_at_once
        request_lines
        in_a_pipeline
    }
}
