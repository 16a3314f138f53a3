"""Unit tests mirror the package: `test_x.py` in the folder of a package holds its module `x`.

Some modules have no file of their own, because another test shows their behaviour. Each has a row below, with this test.
`messages` modules are held by the tests of the modules that show their texts, and by the language check.

    api/windows: unit/core/eligibility/test_windows
    cli/chain_reader: e2e/test_chain_moves
    cli/cluster_api: e2e/test_plans
    cli/cluster_reader: e2e/test_plans
    cli/connection/cluster: e2e/test_kubeconfigs
    cli/approve: e2e/test_commands
    cli/cancel: e2e/test_commands
    cli/drain: e2e/test_commands
    cli/errors: unit/cli/connection/test_kubeconfig
    cli/operator: e2e/test_process
    cli/output: unit/cli/test_progress
    cli/status: e2e/test_commands
    controllers/cleanup: unit/simulation/test_leaving
    controllers/drain/deadlocks: unit/simulation/test_room_elsewhere
    controllers/drain/status_writer: unit/simulation/test_refused_writes
    controllers/evacuation/candidate_lists: unit/simulation/test_chain_moves
    controllers/evacuation/chain_move_finder: unit/simulation/test_chain_moves
    controllers/evacuation/chain_outcomes: unit/controllers/migration/test_chain_requests
    controllers/manager: unit/simulation/test_tasks
    controllers/migration/node_task: unit/simulation/test_rebalancing
    controllers/pools/admission_check: unit/simulation/test_runs
    controllers/pools/controller: unit/simulation/test_runs
    controllers/pools/events: unit/simulation/test_runs
    controllers/pools/move_controller: unit/simulation/test_runs
    controllers/pools/node_loss: unit/controllers/pools/test_pod_counter
    controllers/pools/taint_safety: unit/controllers/pools/test_reconciler
    controllers/rebalance/events: unit/controllers/rebalance/test_controller
    controllers/rebalance/node_usage: unit/controllers/rebalance/test_controller
    controllers/runtime/http_endpoints: e2e/test_process
    controllers/runtime/rate_limits: unit/controllers/evacuation/test_eviction_queue
    controllers/runtime/write_attempts: unit/controllers/drain/test_node_writer
    core/drain/requests: unit/controllers/drain/test_node_controller
    core/eligibility/cluster_state: unit/core/eligibility/test_decision
    core/eligibility/concurrency: unit/core/eligibility/test_decision
    core/eligibility/preconditions: unit/core/eligibility/test_decision
    core/eviction/disruption_target: unit/controllers/evacuation/test_eviction_queue
    core/failure/causes: unit/core/failure/test_health
    core/model/admission: unit/core/pools/test_admission_policies
    core/model/namespaces: unit/test_hostile
    core/model/object_schemas: unit/test_hostile
    core/model/policy_selection: unit/core/eligibility/test_decision
    core/model/release_record: unit/core/model/test_pods
    core/placement/node_snapshot: unit/core/placement/test_planner
    core/placement/pod_constraints: unit/core/placement/test_planner
    core/placement/problem: unit/core/placement/test_planner
    core/placement/scheduling_run: unit/core/placement/test_guaranteed_fits
    core/placement/unschedulable_reasons: unit/core/placement/test_planner
"""
