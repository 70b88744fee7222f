"""Providers that create nodes, on a real API server: tests of tests/integration/operator."""

import pytest

from integration.operator.test_nodes import (
    test_a_workspace_moves_to_prepared_nodes,
    test_an_error_of_a_provider_is_reported_and_retried,
    test_deletion_ends_where_the_crd_is_gone,
    test_deletion_ends_where_the_provider_is_gone,
    test_foreign_finalizers_are_left_alone,
    test_nodes_are_made_and_given_back,
    test_nothing_is_let_go_before_its_nodes_are,
    test_pods_of_a_distributed_preset_that_are_refused,
    test_shared_nodes_stay_with_whom_they_are_after_a_restart,
    test_the_rules_allow_what_is_called_and_no_more,
    test_without_karpenter_the_next_step_is_named,
)

__all__ = [
    "test_a_workspace_moves_to_prepared_nodes",
    "test_an_error_of_a_provider_is_reported_and_retried",
    "test_deletion_ends_where_the_crd_is_gone",
    "test_deletion_ends_where_the_provider_is_gone",
    "test_foreign_finalizers_are_left_alone",
    "test_nodes_are_made_and_given_back",
    "test_nothing_is_let_go_before_its_nodes_are",
    "test_pods_of_a_distributed_preset_that_are_refused",
    "test_shared_nodes_stay_with_whom_they_are_after_a_restart",
    "test_the_rules_allow_what_is_called_and_no_more",
    "test_without_karpenter_the_next_step_is_named",
]

pytestmark = pytest.mark.usefixtures("controllers")
