"""Names of checks before interface 2.0."""

from __future__ import annotations

RENAMED_CHECKS = {
    "declares_its_interface": "declares_interface",
    "summaries_are_lines": "summaries_are_single_lines",
    "imports_nothing_heavy": "imports_are_light",
    "tasks_are_modules": "tasks_are_valid",
    "tasks_can_be_chosen": "task_defaults_are_valid",
    "data_modules_are_modules": "data_modules_are_valid",
    "adapters_name_tasks": "adapter_tasks_exist",
    "models_are_what_they_say": "models_match_specs",
    "formats_are_formats": "formats_are_valid",
    "formats_recognise_their_own": "formats_reject_empty_files",
    "data_modules_make_batches": "data_modules_load_batches",
    "batches_have_their_entries": "batches_have_expected_entries",
    "links_name_attributes": "linked_attributes_exist",
    "links_name_fields": "linked_fields_exist",
    "places_can_be_imported": "import_paths_resolve",
    "classes_are_of_the_kind": "classes_match_kind",
    "reader_can_read": "reader_is_valid",
    "example_makes_a_config": "example_builds_config",
    "config_checks_its_values": "config_validates_values",
    "example_batch_is_a_batch": "example_batch_is_valid",
    "array_has_its_shape": "input_array_has_expected_shape",
    "queries_have_their_shape": "queries_have_expected_shape",
    "reads_what_it_says": "reads_match_spec",
    "accepts_fitting_data": "accepts_matching_data",
    "reader_fits_the_adapter": "reader_fits_adapter",
    "inputs_stay_as_they_are": "inputs_are_not_modified",
    "places_are_decoded_alone": "positions_are_independent",
    "can_start_local": "supports_local_init",
}
"""Current names by the names of interface 1, which ``skip`` accepts with a DeprecationWarning."""
