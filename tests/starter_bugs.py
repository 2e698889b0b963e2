"""Mistakes of a researcher in the starters of text and of tables, for test_planted.py.

Of each: the file, what stands there, what is wrong, and the one test that must see it.
"""

Bug = tuple[str, str, str, str]
STUDY = "src/my_study"
DATA, METRICS, OUTPUTS = f"{STUDY}/data.py", f"{STUDY}/metrics.py", f"{STUDY}/models/outputs.py"
COUNTER, BAG = f"{STUDY}/models/counter.py", f"{STUDY}/models/bag.py"
LSTM, TRANSFORMER = f"{STUDY}/models/lstm.py", f"{STUDY}/models/transformer.py"
LINEAR, MLP = f"{STUDY}/models/linear.py", f"{STUDY}/models/mlp.py"
OWN = "tests/test_data.py::test_"
POOL = "vectors.masked_fill(~mask[..., None], 0).sum(dim=1)"
LETTERS = f"{OWN}letters_of_training_have_an_index_and_all_others_share_one"
NUMBERS = f"{OWN}numbers_are_standardised_by_the_training_rows_and_a_missing_one_is_marked"
CATEGORIES = f"{OWN}each_category_has_its_index_and_what_is_rare_or_new_that_of_the_unknown"
CELLS = f"{OWN}every_cell_is_where_the_table_has_it"


def kit(check: str, model: str = "mlp") -> str:
    """The test of a study that holds a model to a check."""
    return f"tests/test_models.py::test_model[{model}-{check}]"


TEXT: dict[str, Bug] = {
    "mask ignored in the pool": (
        COUNTER,
        POOL,
        "vectors.sum(dim=1)",
        kit("padding_changes_nothing", "bag"),
    ),
    "mask inverted in the pool": (
        COUNTER,
        "~mask[..., None]",
        "mask[..., None]",
        kit("padding_changes_nothing", "bag"),
    ),
    "the last position taken, which is padding": (
        COUNTER,
        POOL,
        "vectors[:, -1]",
        kit("padding_changes_nothing", "bag"),
    ),
    "a sum over the batch": (
        COUNTER,
        ".sum(dim=1)",
        ".sum(dim=0)",
        kit("outputs_have_their_fields_and_shapes", "bag"),
    ),
    "attention that looks at padding": (
        TRANSFORMER,
        ", attn_mask=mask[:, None, None])",
        ")",
        kit("padding_changes_nothing", "transformer"),
    ),
    "attention that looks at nothing else": (
        TRANSFORMER,
        "attn_mask=mask[:, None, None]",
        "attn_mask=~mask[:, None, None]",
        kit("padding_changes_nothing", "transformer"),
    ),
    "positions never used": (
        TRANSFORMER,
        "if self.rotate is not None:",
        "if self.rotate is None:",
        kit("the_order_of_positions_counts", "transformer"),
    ),
    "positions of the queries alone": (
        TRANSFORMER,
        "query, key = turn(query, self.rotate), turn(key, self.rotate)",
        "query = turn(query, self.rotate)",
        f"{OWN}a_rotary_transformer_knows_distances_and_not_where_a_word_begins",
    ),
    "heads and positions mixed by a reshape": (
        TRANSFORMER,
        "mixed.transpose(1, 2).flatten(2)",
        "mixed.reshape(vectors.shape)",
        kit("padding_changes_nothing", "transformer"),
    ),
    "an LSTM that is not packed": (
        LSTM,
        "outputs, _ = self.lstm(packed)\n        vectors, _ = pad_packed_sequence(outputs,",
        "vectors, _ = self.lstm(self.embedding(letters))\n        pad_packed_sequence(packed,",
        kit("padding_changes_nothing", "lstm"),
    ),
    "padding lost when the longest word is short": (
        LSTM,
        ", total_length=letters.shape[1]",
        "",
        kit("a_batch_of_one_equals_its_row", "lstm"),
    ),
    "rows sorted by length and never put back": (
        LSTM,
        "lengths = mask.sum(dim=1).cpu()",
        "lengths, order = mask.sum(1).cpu().sort()\n        letters = letters[order]",
        kit("permuting_the_batch_permutes_the_output", "lstm"),
    ),
    "batch and length swapped": (
        LSTM,
        "lengths, batch_first=True",
        "lengths, batch_first=False",
        kit("outputs_have_their_fields_and_shapes", "lstm"),
    ),
    "softmax before cross-entropy": (
        OUTPUTS,
        "F.cross_entropy(logits, target)",
        "F.cross_entropy(logits.softmax(dim=-1), target)",
        kit("three_instances_are_fitted_perfectly", "bag"),
    ),
    "classes counted from 1": (
        DATA,
        "int(count) - 1",
        "int(count)",
        f"{OWN}every_word_has_its_class_less_one",
    ),
    "targets of the word before": (
        DATA,
        '"target": target}',
        '"target": np.roll(target, 1)}',
        f"{OWN}every_word_has_its_class_less_one",
    ),
    "letters learnt from the rows that are encoded": (
        DATA,
        '        words = fields["word"].tolist()\n        longest',
        '        self.fit(fields)\n        words = fields["word"].tolist()\n        longest',
        LETTERS,
    ),
    "a letter with the index of padding": (
        DATA,
        "enumerate(self.letters, start=FIRST)",
        "enumerate(self.letters)",
        LETTERS,
    ),
    "a letter with the index of the unknown": (
        DATA,
        "enumerate(self.letters, start=FIRST)",
        "enumerate(self.letters, start=UNKNOWN)",
        LETTERS,
    ),
    "an unknown letter taken for padding": (
        DATA,
        "index.get(letter, UNKNOWN)",
        "index.get(letter, PADDING)",
        LETTERS,
    ),
    "letters in another order in each process": (
        DATA,
        '"".join(sorted(set().union(*fields["word"].tolist())))',
        '"".join(set().union(*fields["word"].tolist()))',
        f"{OWN}letters_are_numbered_as_in_the_alphabet",
    ),
    "dropout at evaluation": (
        COUNTER,
        "self.head(word)",
        "self.head(nn.functional.dropout(word, 0.1))",
        kit("evaluation_is_pure_and_dropout_acts_in_training", "bag"),
    ),
    "an embedding without a gradient": (
        BAG,
        "self.embedding(letters)\n",
        "self.embedding(letters).detach()\n",
        kit("every_parameter_gets_a_gradient", "bag"),
    ),
    "an embedding that stays as it was drawn": (
        BAG,
        "nn.Embedding(max_index + 1, num_features)",
        "nn.Embedding(max_index + 1, num_features).requires_grad_(False)",
        kit("a_step_moves_what_is_trainable_and_nothing_else", "bag"),
    ),
    "the embedding of the padding is that of a letter": (
        BAG,
        "nn.Embedding(max_index + 1, num_features)",
        "nn.Embedding(max_index + 1, num_features, padding_idx=6)",
        kit("gradients_equal_finite_differences", "bag"),
    ),
    "learnt positions never added": (
        TRANSFORMER,
        'elif self.position == "learnt":',
        'elif self.position == "learned":',
        f"{OWN}a_transformer_tells_positions_apart_unless_it_has_none[learnt]",
    ),
    "waves that turn faster and faster": (
        TRANSFORMER,
        "rates = base ** -(",
        "rates = base ** (",
        f"{OWN}the_first_wave_turns_by_one_a_letter_and_the_last_about_once_in_six_words",
    ),
    "a metric that is best when it is low": (
        "conf/data/words.yaml",
        "higher_is_better: true",
        "higher_is_better: false",
        kit("metrics_are_best_for_right_predictions", "bag"),
    ),
    "padding cut in one field alone": (
        "conf/data/words.yaml",
        "fields: [letters]",
        "fields: []",
        kit("the_batch_is_as_specified", "bag"),
    ),
}
READ_NUMBER = 'float(cell or "nan")'
TABLES: dict[str, Bug] = {
    "numbers scaled by the rows that are encoded": (
        DATA,
        "(values - self.means[name]) / self.deviations[name]",
        "(values - np.nanmean(values)) / np.nanstd(values)",
        NUMBERS,
    ),
    "numbers scaled by the batch": (
        MLP,
        "torch.cat([numbers, embedded], dim=1)",
        "torch.cat([numbers - numbers.mean(dim=0), embedded], dim=1)",
        kit("nothing_leaks_across_the_batch"),
    ),
    "a missing value read as 0": (DATA, READ_NUMBER, "float(cell or 0)", CELLS),
    "a missing value that is 0 before it is scaled": (
        DATA,
        "np.where(missing, 0, (values - self.means[name]) / self.deviations[name])",
        "(np.where(missing, 0, values) - self.means[name]) / self.deviations[name]",
        NUMBERS,
    ),
    "a missing value that nothing marks": (
        DATA,
        "yield np.isnan(columns[name]).astype(np.float64)",
        "yield np.zeros(len(columns[name]))",
        NUMBERS,
    ),
    "a mark where a value is there": (
        DATA,
        "yield np.isnan(columns[name])",
        "yield ~np.isnan(columns[name])",
        NUMBERS,
    ),
    "a new category stops the program": (
        DATA,
        "known.get(str(value), first)",
        "known[str(value)]",
        CATEGORIES,
    ),
    "a category with the index of the unknown": (
        DATA,
        "first + 1 + rank",
        "first + rank",
        CATEGORIES,
    ),
    "a category with the index of another column": (
        DATA,
        "first += size + 1",
        "first += size",
        CATEGORIES,
    ),
    "rare categories kept": (
        DATA,
        "values[counts >= self.min_rows]",
        "values[counts >= 1]",
        CATEGORIES,
    ),
    "a target that is scaled and never turned back": (
        OUTPUTS,
        "target_mean + target_std * output.squeeze(dim=-1)",
        "output.squeeze(dim=-1)",
        kit("the_first_loss_is_that_of_guessing"),
    ),
    "a loss of scaled targets": (
        OUTPUTS,
        "F.mse_loss(prediction, target)",
        "F.mse_loss(prediction / target_std, target / target_std)",
        kit("the_loss_is_the_declared_one"),
    ),
    "an error of scaled values": (
        DATA,
        'fields["target"].astype(np.float32)',
        '((fields["target"] - 23) / 8).astype(np.float32)',
        kit("the_batch_is_as_specified"),
    ),
    "[rows, 1] less [rows]": (
        OUTPUTS,
        "F.mse_loss(prediction, target)",
        "F.mse_loss(prediction[:, None], target)",
        kit("the_loss_is_the_declared_one"),
    ),
    "predictions of shape [rows, 1]": (
        OUTPUTS,
        "output.squeeze(dim=-1)",
        "output",
        kit("outputs_have_their_fields_and_shapes"),
    ),
    "an axis too many squeezed": (
        OUTPUTS,
        "output.squeeze(dim=-1)",
        "output.squeeze()",
        kit("a_batch_of_one_equals_its_row"),
    ),
    "a sum over the rows": (
        LINEAR,
        "self.weights(categories).sum(dim=1)",
        "self.weights(categories).sum(dim=(0, 1))",
        kit("nothing_leaks_across_the_batch", "linear"),
    ),
    "a column dropped": (
        MLP,
        "torch.cat([numbers, embedded], dim=1)",
        "torch.cat([numbers[:, :-1], numbers[:, :1], embedded], dim=1)",
        kit("each_input_influences_the_output"),
    ),
    "one category for all": (
        MLP,
        "self.embedding(categories)",
        "self.embedding(categories[:, :1].expand_as(categories))",
        kit("each_input_influences_the_output"),
    ),
    "the target among the inputs": (
        DATA,
        'encoded["target"] = fields["target"].astype(np.float32)',
        'encoded["target"] = fields["target"].astype(np.float32)\n'
        '            numbers[:, 0] = encoded["target"] / 60',
        kit("the_data_are_sane"),
    ),
    "a column sorted by itself": (
        DATA,
        f"[{READ_NUMBER} for cell in cells]",
        f"[{READ_NUMBER} for cell in (sorted(cells) if name == 'weight' else cells)]",
        CELLS,
    ),
    "a prediction that is never low": (
        MLP,
        "self.output(features)",
        "self.output(features).relu()",
        kit("three_instances_are_fitted_perfectly"),
    ),
    "no activation": (
        MLP,
        "nn.Linear(num_inputs, num_outputs), nn.ReLU(), nn",
        "nn.Linear(num_inputs, num_outputs), nn",
        kit("layers_are_more_than_one_linear_map"),
    ),
    "deviations forgotten by the state": (
        DATA,
        '"deviations": self.deviations',
        '"deviations": self.means',
        f"{OWN}the_state_comes_back_through_json",
    ),
    "an error that is best when it is high": (
        "conf/data/cars.yaml",
        "higher_is_better: false",
        "higher_is_better: true",
        kit("metrics_are_best_for_right_predictions"),
    ),
    "errors that cancel": (
        METRICS,
        "return apart.abs()",
        "return apart",
        "tests/test_metrics.py::test_a_metric_is_what_is_counted_by_hand[mean absolute error]",
    ),
    "more categories than the embedding has": (
        "conf/data/cars.yaml",
        "num_categories: 41",
        "num_categories: 40",
        kit("outputs_have_their_fields_and_shapes"),
    ),
    "the scale of the target ignored": (
        OUTPUTS,
        "target_mean + target_std * output",
        "target_mean + output",
        kit("every_knob_acts"),
    ),
}
