"""NodeClaims on a real API server: tests of tests/integration/operator."""

import pytest

from integration.operator.test_claims import (
    test_a_claim_neither_expires_nor_becomes_a_spot_machine,
    test_a_claim_that_goes_away_is_not_made_again_at_once_nor_after_a_restart,
    test_a_claim_that_is_deleted_by_hand_is_made_anew,
    test_a_claim_that_loses_its_owner_by_hand_is_taken_back,
    test_a_failed_launch_is_told_in_its_controllers_words,
    test_a_machine_type_that_is_in_no_table_is_asked_of_the_cloud_that_names_its_types_so,
    test_a_machine_type_without_gpus_is_refused_where_they_are_needed,
    test_a_new_gpu_type_is_sized_by_its_node,
    test_a_refusal_is_told_in_the_clouds_words_and_the_next_machine_is_taken,
    test_a_workspace_chooses_capacity_type_and_zones,
    test_all_missing_nodes_are_asked_for_before_any_is_ready,
    test_an_unknown_machine_type_is_named,
    test_fewer_nodes_give_the_others_back,
    test_no_machine_is_made_that_would_be_too_small,
    test_prepared_nodes_of_the_type_are_taken,
)

__all__ = [
    "test_a_claim_neither_expires_nor_becomes_a_spot_machine",
    "test_a_claim_that_goes_away_is_not_made_again_at_once_nor_after_a_restart",
    "test_a_claim_that_is_deleted_by_hand_is_made_anew",
    "test_a_claim_that_loses_its_owner_by_hand_is_taken_back",
    "test_a_failed_launch_is_told_in_its_controllers_words",
    "test_a_machine_type_that_is_in_no_table_is_asked_of_the_cloud_that_names_its_types_so",
    "test_a_machine_type_without_gpus_is_refused_where_they_are_needed",
    "test_a_new_gpu_type_is_sized_by_its_node",
    "test_a_refusal_is_told_in_the_clouds_words_and_the_next_machine_is_taken",
    "test_a_workspace_chooses_capacity_type_and_zones",
    "test_all_missing_nodes_are_asked_for_before_any_is_ready",
    "test_an_unknown_machine_type_is_named",
    "test_fewer_nodes_give_the_others_back",
    "test_no_machine_is_made_that_would_be_too_small",
    "test_prepared_nodes_of_the_type_are_taken",
]

pytestmark = pytest.mark.usefixtures("controllers")
