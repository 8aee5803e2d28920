"""Every member of every input of the API, and the test that shows its effect."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from botocore.model import ListShape, MapShape, Shape, StructureShape

from api.personalize.service_model import service_operations

MAP_KEYS: Mapping[str, tuple[str, ...]] = {
    "itemExplorationConfig": ("explorationWeight", "explorationItemAgeCutOff"),
    "rankingInfluence": ("POPULARITY", "FRESHNESS"),
    "excludedDatasetColumns": ("INTERACTIONS", "ITEMS", "USERS"),
    "includedDatasetColumns": ("INTERACTIONS", "ITEMS", "USERS"),
}
"""Keys of maps that are members of their own; in other maps, the caller names the keys."""

EFFECTS: Mapping[str, str] = {
    # Lists, and descriptions: which resources, and which page of them.
    "List*.maxResults": "test_control_lists.test_lists_come_in_pages",
    "List*.nextToken": "test_control_lists.test_a_token_is_valid_for_its_list_only",
    "ListRecipes.*": "test_control_lists.test_recipes_are_listed_and_described",
    "List*.*Arn": "test_input_members.test_a_list_is_of_the_named_parent",
    "Describe*.*Arn": "test_input_members.test_an_arn_names_the_resource",
    "Delete*.*Arn": "test_input_members.test_an_arn_names_the_resource",
    "*agResource.**": "test_control_lists.test_tags_are_added_replaced_and_removed",
    "ListTagsForResource.resourceArn": (
        "test_control_lists.test_tags_are_added_replaced_and_removed"
    ),
    "Create*.tags[].*": "test_input_members.test_names_and_tags_are_the_resources_own",
    "Create*.name": "test_input_members.test_names_and_tags_are_the_resources_own",
    "Create*.jobName": "test_input_members.test_names_and_tags_are_the_resources_own",
    "CreateSolutionVersion.name": "test_control_solutions.test_a_version_copies_its_solution",
    "St*Recommender.recommenderArn": "test_control_campaigns.test_a_recommender_starts_and_stops",
    "StopSolutionVersionCreation.*": "test_control_solutions.test_training_can_be_stopped",
    "GetSolutionMetrics.*": (
        "test_control_solutions.test_metrics_are_there_once_training_has_ended"
    ),
    "Create*.datasetGroupArn": "test_input_members.test_a_list_is_of_the_named_parent",
    # Data.
    "CreateSchema.schema": "test_control_datasets.test_a_schema_must_fit_the_dataset",
    "CreateSchema.domain": "test_control_datasets.test_a_schema_must_fit_the_dataset",
    "CreateDatasetGroup.domain": (
        "test_control_campaigns.test_recommenders_are_for_groups_of_their_domain"
    ),
    "CreateDataset.schemaArn": "test_control_datasets.test_a_schema_must_fit_the_dataset",
    "CreateDataset.datasetType": "test_control_datasets.test_datasets_of_all_three_types",
    "UpdateDataset.*": "test_control_datasets.test_a_dataset_takes_a_wider_schema",
    "CreateDatasetImportJob.datasetArn": (
        "test_control_jobs.test_one_import_into_a_dataset_at_a_time"
    ),
    "CreateDatasetImportJob.dataSource.dataLocation": (
        "test_imports.test_an_import_takes_effect_once"
    ),
    "CreateDatasetImportJob.importMode": (
        "test_imports.test_a_full_import_replaces_imported_interactions"
    ),
    "CreateDatasetExportJob.ingestionMode": (
        "test_imports.test_a_full_import_replaces_imported_records"
    ),
    "CreateDatasetExportJob.datasetArn": (
        "test_seed_workflows.test_segments_exports_and_deletions"
    ),
    "CreateDatasetExportJob.jobOutput.s3DataDestination.path": (
        "test_seed_workflows.test_segments_exports_and_deletions"
    ),
    "CreateDataDeletionJob.dataSource.dataLocation": "test_erasures.test_users_are_erased",
    "CreateFilter.filterExpression": "test_filtering.test_filters_of_items",
    # Solutions, campaigns and recommenders.
    "CreateSolution.recipeArn": "test_runtime.test_other_recipes_have_no_scores",
    "CreateSolution.performAutoML": "test_runner.test_the_best_recipe_wins",
    "CreateSolution.solutionConfig.autoMLConfig.recipeList[]": (
        "test_runner.test_the_best_recipe_wins"
    ),
    "CreateSolution.solutionConfig.autoMLConfig.metricName": (
        "test_runner.test_the_metric_says_which_recipe_is_best"
    ),
    "UpdateSolution.solutionArn": "test_control_solutions.test_a_version_copies_its_solution",
    "CreateSolutionVersion.solutionArn": (
        "test_control_solutions.test_a_version_copies_its_solution"
    ),
    "CreateSolutionVersion.trainingMode": (
        "test_control_solutions.test_an_update_needs_an_earlier_version"
    ),
    "CreateCampaign.solutionVersionArn": (
        "test_control_campaigns.test_a_campaign_deploys_a_version"
    ),
    "UpdateCampaign.campaignArn": "test_control_campaigns.test_an_update_takes_effect_at_once",
    "UpdateCampaign.solutionVersionArn": (
        "test_control_campaigns.test_an_update_takes_effect_at_once"
    ),
    "*Campaign.campaignConfig.syncWithLatestSolutionVersion": (
        "test_control_campaigns.test_a_synced_campaign_follows_its_solution"
    ),
    "**.enableMetadataWithRecommendations": "test_campaign_options.test_metadata_must_be_enabled",
    "CreateRecommender.recipeArn": (
        "test_control_campaigns.test_recommenders_are_for_groups_of_their_domain"
    ),
    "UpdateRecommender.recommenderArn": (
        "test_control_campaigns.test_a_recommender_starts_and_stops"
    ),
    "CreateSolution.eventType": "test_campaign_options.test_the_event_type_says_which_events_count",
    "**.eventsConfig.eventParametersList[].eventType": (
        "test_campaign_options.test_events_count_by_their_weights"
    ),
    "**.eventsConfig.eventParametersList[].weight": (
        "test_campaign_options.test_events_count_by_their_weights"
    ),
    "CreateSolution.solutionConfig.optimizationObjective.*": (
        "test_campaign_options.test_an_objective_puts_items_of_its_column_first"
    ),
    "CreateSolution.solutionConfig.algorithmHyperParameters": (
        "test_campaign_options.test_bptt_says_how_far_back_a_user_is_looked_at"
    ),
    "CreateSolution.solutionConfig.featureTransformationParameters": (
        "test_campaign_options.test_trends_may_be_of_the_day"
    ),
    "**.trainingDataConfig.*.ITEMS": (
        "test_campaign_options.test_columns_that_are_not_trained_on_do_not_count"
    ),
    "**.trainingDataConfig.*.INTERACTIONS": (
        "test_campaign_options.test_contextual_columns_may_be_left_out"
    ),
    "**.itemExplorationConfig.explorationWeight": (
        "test_campaign_options.test_the_exploration_weight_says_how_much"
    ),
    "**.itemExplorationConfig.explorationItemAgeCutOff": (
        "test_campaign_options.test_the_age_cut_off_says_which_items"
    ),
    "*Recommender.recommenderConfig.itemExplorationConfig.*": (
        "test_campaign_options.test_recommenders_explore_by_their_configuration"
    ),
    "**.rankingInfluence.*": (
        "test_campaign_options.test_ranking_influence_mixes_popularity_and_freshness_in"
    ),
    "CreateBatchInferenceJob.batchInferenceJobConfig.**": (
        "test_batch_options.test_batch_jobs_take_their_options"
    ),
    "CreateSolution.performHPO": (
        "test_batch_options.test_hyperparameters_are_optimized_within_their_ranges"
    ),
    "CreateSolution.solutionConfig.hpoConfig.**": (
        "test_batch_options.test_hyperparameters_are_optimized_within_their_ranges"
    ),
    "CreateSolution.solutionConfig.hpoConfig.algorithmHyperParameterRanges.integer**": (
        "test_batch_options.test_ranges_bound_what_is_tried"
    ),
    "CreateSolution.solutionConfig.hpoConfig.algorithmHyperParameterRanges.categorical**": (
        "test_batch_options.test_ranges_bound_what_is_tried"
    ),
    "*Solution.performAutoTraining": "test_control_solutions.test_versions_are_created_on_schedule",
    "**.autoTrainingConfig.schedulingExpression": (
        "test_control_solutions.test_versions_are_created_on_schedule"
    ),
    "*Solution.performIncrementalUpdate": (
        "test_control_solutions.test_incremental_updates_are_for_semantic_similarity"
    ),
    # Batch jobs.
    "CreateBatchInferenceJob.themeGenerationConfig.**": (
        "test_themes.test_similar_items_get_a_theme"
    ),
    "CreateBatchInferenceJob.batchInferenceJobMode": ("test_themes.test_similar_items_get_a_theme"),
    "CreateBatch*Job.solutionVersionArn": (
        "test_control_jobs.test_batch_inference_waits_for_the_version"
    ),
    "CreateBatchInferenceJob.filterArn": "test_runner.test_batches_answer_each_line",
    "CreateBatchSegmentJob.filterArn": "test_seed_workflows.test_segments_exports_and_deletions",
    "CreateBatch*Job.numResults": "test_runner.test_batches_answer_each_line",
    "CreateBatch*Job.jobInput.s3DataSource.path": "test_runner.test_batches_answer_each_line",
    "CreateBatch*Job.jobOutput.s3DataDestination.path": (
        "test_runner.test_batches_answer_each_line"
    ),
    # Events and metadata.
    "PutEvents.trackingId": "test_ingestion.test_foreign_tracking_ids_are_refused",
    "PutEvents.userId": "test_ingestion.test_an_anonymous_session_is_linked_at_login",
    "PutEvents.sessionId": "test_ingestion.test_an_anonymous_session_is_linked_at_login",
    "PutEvents.eventList[].eventId": "test_ingestion.test_a_repeated_event_id_counts_once",
    "PutEvents.eventList[].eventType": (
        "test_filtering.test_a_purchase_is_excluded_from_the_next_answer"
    ),
    "PutEvents.eventList[].itemId": "test_ingestion.test_an_event_changes_the_next_answer",
    "PutEvents.eventList[].properties": (
        "test_ingestion.test_the_item_may_stand_in_the_properties"
    ),
    "PutEvents.eventList[].sentAt": "test_ingestion.test_times_as_boto3_sends_them",
    "PutEvents.eventList[].recommendationId": "test_ingestion.test_impressions_are_kept",
    "PutEvents.eventList[].impression[]": "test_ingestion.test_impressions_are_kept",
    "PutItems.**": "test_groups.test_datasets_take_metadata_once_created",
    "PutUsers.**": "test_filtering.test_filters_by_user_and_current_item",
    "PutActions.**": "test_actions.test_equally_likely_actions_are_ordered_by_value",
    "PutActionInteractions.trackingId": (
        "test_actions.test_tracking_ids_are_for_one_kind_of_events"
    ),
    "PutActionInteractions.actionInteractions[].eventId": (
        "test_actions.test_an_interaction_counts_once"
    ),
    "PutActionInteractions.actionInteractions[].*": (
        "test_actions.test_propensities_follow_what_users_took"
    ),
    "PutActionInteractions.actionInteractions[].timestamp": (
        "test_actions.test_an_action_is_not_repeated_before_its_time"
    ),
    "PutEvents.eventList[].metricAttribution.eventAttributionSource": (
        "test_metric_reports.test_events_are_reported_by_their_source"
    ),
    "CreateDatasetImportJob.publishAttributionMetricsToS3": (
        "test_metric_reports.test_an_import_publishes_its_metrics"
    ),
    "CreateMetricAttribution.**": "test_metric_reports.test_metrics_say_what_is_counted",
    "UpdateMetricAttribution.**": ("test_metric_reports.test_metrics_and_the_place_are_changed"),
    # Answers.
    "Get*.campaignArn": "test_runtime.test_other_recipes_have_no_scores",
    "GetActionRecommendations.campaignArn": (
        "test_actions.test_the_campaign_answers_with_actions_only"
    ),
    "GetActionRecommendations.userId": "test_actions.test_scores_are_the_users_own",
    "GetActionRecommendations.numResults": "test_actions.test_numbers_of_results",
    "GetActionRecommendations.filter*": "test_actions.test_filters_of_actions",
    "GetRecommendations.itemId": "test_runtime.test_both_ids_are_accepted",
    "Get*.userId": "test_runtime.test_user_personalization",
    "GetRecommendations.numResults": "test_runtime.test_number_of_results",
    "Get*.context": "test_context.test_context_counts_beside_history",
    "Get*.filterArn": "test_filtering.test_filters_of_items",
    "Get*.filterValues": "test_filtering.test_filters_of_items",
    "GetRecommendations.recommenderArn": (
        "test_control_campaigns.test_a_recommender_starts_and_stops"
    ),
    "GetRecommendations.promotions[].*": "test_filtering.test_promotions",
    "Get*.metadataColumns": "test_filtering.test_metadata_columns",
    "GetPersonalizedRanking.inputList[]": "test_runtime.test_personalized_ranking",
}
"""The test, `<module>.<function>`, that shows the effect of the members a pattern names.

Its answers differ between opposite values of the member. `*` is any part of a name, `**` anything;
of several patterns the longest counts.
"""


def effect_of(member: str) -> str | None:
    """The test that shows the effect of a member; None if there is none."""
    found = [pattern for pattern in EFFECTS if _matches(pattern, member)]
    return EFFECTS[max(found, key=len)] if found else None


def _matches(pattern: str, member: str) -> bool:
    parts = (re.escape(part).replace(r"\*", "[^.]*") for part in pattern.split("**"))
    return re.fullmatch(".*".join(parts), member) is not None


def input_members() -> Iterator[str]:
    """Every member of every input, as `<operation>.<path>`; members of lists follow `[]`."""
    for name, operation in service_operations().items():
        if operation.model.input_shape is not None:
            yield from _members(operation.model.input_shape, name)


def _members(shape: Shape, path: str) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        for name, inner in shape.members.items():
            yield from _members(inner, f"{path}.{name}")
    elif isinstance(shape, ListShape):
        yield from _members(shape.member, f"{path}[]")
    elif isinstance(shape, MapShape):
        keys = MAP_KEYS.get(path.rpartition(".")[2])
        yield from (f"{path}.{key}" for key in keys) if keys else (path,)
    else:
        yield path
