"""A learner in NumPy: a linear policy that sees the best place of the trial so far, trained by an evolution strategy."""

import numpy as np


class MyAgent:
    """Actions are tanh(W [1, o, b]): o is the observation, b the one in which this trial's reward was highest."""

    def __init__(self, problem, seed, deviation=0.3, step=0.3):
        self.problem, self.deviation, self.step = problem, deviation, step
        self.generator = np.random.default_rng(seed)
        self.weights = np.zeros((problem.action_dim, 1 + 2 * problem.observation_dim))
        self.baseline = np.full(len(problem.train_tasks), np.nan)  # usual return of each training task

    def begin_trial(self, num_envs):
        self.policies = np.repeat(self.weights[None], num_envs, axis=0)
        self.best_reward = np.full(num_envs, -np.inf)
        self.best_place = np.zeros((num_envs, self.problem.observation_dim))

    def begin_training_trial(self, num_envs, iteration):
        self.begin_trial(num_envs)
        self.noise = self.generator.normal(size=self.policies.shape)
        self.policies = self.policies + self.deviation * self.noise  # every environment tries a policy of its own

    def act(self, observation, deterministic):
        seen = np.concatenate([np.ones((len(observation), 1)), observation, self.best_place], axis=1)
        return np.tanh(np.einsum("nao,no->na", self.policies, seen))

    def observe(self, transition):
        better = transition.active & (transition.reward > self.best_reward)
        self.best_reward[better] = transition.reward[better]
        self.best_place[better] = transition.next_observation[better]

    def learn(self, trials):
        returns = trials.reward.sum(axis=1)
        for task in np.unique(trials.task_index):
            mean = returns[trials.task_index == task].mean()
            known = not np.isnan(self.baseline[task])
            self.baseline[task] = 0.8 * self.baseline[task] + 0.2 * mean if known else mean
        advantage = returns - self.baseline[trials.task_index]
        advantage = advantage / (advantage.std() + 1e-8)
        self.weights = self.weights + self.step * np.einsum("n,nao->ao", advantage, self.noise) / len(advantage)
        return {"largest_weight": np.abs(self.weights).max()}

    def state_dict(self):
        return {"weights": self.weights, "baseline": self.baseline, "generator": self.generator.bit_generator.state}

    def load_state_dict(self, state):
        self.weights, self.baseline = state["weights"], state["baseline"]
        self.generator.bit_generator.state = state["generator"]
