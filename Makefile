# Every command of the project. `make` alone lists them.
# Tools are installed into .venv and .venv-sam here, never anywhere else.

PYTHON ?= python3

# These values come from the command line only (`make token AS=staff`). The assignments hide variables of the same names
# that make predefines, such as AS, or that the environment holds for other programs, such as NAME or PORT.
AS :=
CONFIRM :=
DATA := bench/invoices.csv
DEBUG :=
FROM :=
FUNCTION :=
NAME :=
ORDER :=
ORDERS :=
PERSISTENT :=
PORT := 3000
PROTECT :=
RULE :=
SEED :=
SPEED :=
STACK :=
STAGE := sandbox
TO :=

BIN := .venv/bin
SAM := SAM_CLI_TELEMETRY=0 .venv-sam/bin/sam

# The tests record the AWS calls of the functions in CALLS. Afterwards PERMISSIONS compares them with the functions' roles.
CALLS := .local/calls
PERMISSIONS := tests/contract/test_permissions.py

# .venv is the environment of all commands: `.venv/run` installs what the application and the local runner need, `.venv/dev`
# adds the tools for tests and lint.
# uv installs four times as fast as pip, and compiles the bytecode that makes the runner start quickly.
INSTALL = VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --require-hashes --compile-bytecode -r

.PHONY: help run demo load chaos seed events alerts republish replay reconcile unpark switch-off switch-on schemas catalogue openapi test test-unit lint audit format build deploy token test-e2e destroy test-sam-local lock clean

help: ## list the commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## | [|] ' \
	  '{printf "make %-14s %s\n", $$1, $$2} NF > 2 {printf "%20s%s\n", "", $$3}'

run: .venv/run ## run the application on this machine | [PORT=3000] [DEBUG=OrderApiFunction]
	@exec $(BIN)/python -m localaws run --port "$(PORT)" --prepare "$(BIN)/python -m tools.prepare" --highlight orderId \
	  $(if $(DEBUG),--debug "$(DEBUG)") --stack-name orderflow --parameter SenderEmail=shop@example.com --parameter SalesEmail=sales@example.com

demo: .venv/run ## send every request of events/order_api/ to a new local stack
	@$(BIN)/python -m tools.demo

load: .venv/run ## place invoices as orders on a new local stack, and measure | [DATA=bench/invoices.csv] [SPEED=times real time]
	@$(BIN)/python -m bench.load "$(DATA)" $(if $(SPEED),--speed "$(SPEED)")

chaos: .venv/run ## place orders under random faults, and check the outcome | [SEED=n] [ORDERS=500] [PERSISTENT=yes]
	@$(BIN)/python -m tests.chaos.run $(if $(SEED),--seed "$(SEED)") $(if $(ORDERS),--orders "$(ORDERS)") \
	  $(if $(filter yes,$(PERSISTENT)),--persistent)

seed: .venv/run ## fill the catalogue and the stock of a running stack | [STACK=name of a deployed stack]
	@$(BIN)/python -m tools.seed $(if $(STACK),--stack "$(STACK)")

events: .venv/run ## list the events of an order in the event log | ORDER=ORD-… [STACK=name]
	@$(BIN)/python -m tools.events $(if $(ORDER),--order "$(ORDER)") $(if $(STACK),--stack "$(STACK)")

alerts: .venv/run ## show the alerts and the sales reports that were published | [STACK=name]
	@$(BIN)/python -m tools.alerts $(if $(STACK),--stack "$(STACK)")

switch-off: .venv/run ## switch a function off: Lambda stops running it | FUNCTION=InventoryFunction [STACK=name]
	@$(BIN)/python -m tools.switch off $(if $(FUNCTION),--function "$(FUNCTION)") $(if $(STACK),--stack "$(STACK)")

switch-on: .venv/run ## switch it on, and say how to redrive the missed events | FUNCTION=InventoryFunction [STACK=name]
	@$(BIN)/python -m tools.switch on $(if $(FUNCTION),--function "$(FUNCTION)") $(if $(STACK),--stack "$(STACK)")

republish: .venv/run ## publish stored events again | ORDER=ORD-… or FROM=… TO=… (RFC 3339) [STACK=name]
	@$(BIN)/python -m tools.republish $(if $(ORDER),--order "$(ORDER)") $(if $(FROM),--from "$(FROM)") \
	  $(if $(TO),--to "$(TO)") $(if $(STACK),--stack "$(STACK)")

replay: .venv/run ## replay events from the archive to named rules | FROM=… TO=… RULE=name[,name] [NAME=…] [STACK=name]
	@$(BIN)/python -m tools.replay $(if $(FROM),--from "$(FROM)") $(if $(TO),--to "$(TO)") \
	  $(if $(RULE),--rule "$(RULE)") $(if $(NAME),--name "$(NAME)") $(if $(STACK),--stack "$(STACK)")

reconcile: .venv/run ## check that the data of an idle stack is consistent | [STACK=name]
	@$(BIN)/python -m tools.reconcile $(if $(STACK),--stack "$(STACK)")

schemas: .venv/run ## write the JSON Schemas of the events and their registry
	@PYTHONPATH=layers/orderflow $(BIN)/python -m tools.schemas

catalogue: .venv/run ## write docs/events.md from the event models and the template
	@PYTHONPATH=layers/orderflow $(BIN)/python -m tools.catalogue

openapi: .venv/run ## write docs/openapi.json and docs/api.md from the code
	@PYTHONPATH=functions:layers/orderflow $(BIN)/python -m tools.openapi

unpark: .venv/run ## move messages from the parking queue back to the DLQ | [STACK=name]
	@$(BIN)/python -m tools.unpark $(if $(STACK),--stack "$(STACK)")

test: .venv/dev ## run every test
	@rm -rf $(CALLS)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term \
	  --calls $(CALLS) --ignore $(PERMISSIONS)
	@$(BIN)/python -m pytest -qq $(PERMISSIONS) --calls $(CALLS)

test-unit: .venv/dev ## run the unit tests of the application, in seconds
	@$(BIN)/python -m pytest tests/unit --ignore localaws/tests --ignore tests/unit/tools

lint: .venv/dev .venv-sam/done ## run ruff, mypy --strict, cfn-lint and sam validate --lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/cfn-lint template.yaml infrastructure/*.yaml
	$(SAM) validate --lint --region us-east-1

audit: .venv-audit/done ## check templates, workflows and dependencies (asks PyPI)
	.venv-audit/bin/checkov --config-file .checkov.yaml
	.venv-audit/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off \
	  $(addprefix -r ,$(wildcard requirements/*.txt layers/dependencies/*.txt))

format: .venv/dev ## format the code with ruff, and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

build: .venv-sam/done ## run sam build (needs python3.13 on the PATH)
	$(SAM) build

deploy: .venv/run .venv-sam/done ## build and deploy with the SAM CLI | [STAGE=sandbox|staging|prod] [CONFIRM=yes] [PROTECT=no]
	@$(BIN)/python -m tools.deploy --stage "$(STAGE)" $(if $(filter yes,$(CONFIRM)),--confirmed) \
	  $(if $(filter no,$(PROTECT)),--unprotected)

token: .venv/run ## print an ID token of a test user | [AS=staff] [STACK=name]
	@$(BIN)/python -m tools.token $(if $(AS),--as "$(AS)") $(if $(STACK),--stack "$(STACK)")

test-e2e: $(if $(STACK),.venv/dev) ## run the end-to-end tests against a deployed stack | STACK=name
	@test -n "$(STACK)" || { echo "error: name a stack: make test-e2e STACK=name" >&2; exit 2; }
	@$(BIN)/python -m pytest tests/e2e --stack "$(STACK)"

destroy: $(if $(STACK),.venv/run .venv-sam/done) ## delete a deployed stack with all its data | STACK=name [CONFIRM=yes: don't ask]
	@test -n "$(STACK)" || { echo "error: name a stack: make destroy STACK=name" >&2; exit 2; }
	@$(BIN)/python -m tools.destroy --stack "$(STACK)" $(if $(filter yes,$(CONFIRM)),--confirmed)

test-sam-local: .venv/dev .venv-sam/done ## send every fixture through the real SAM CLI (needs Docker)
	@$(BIN)/python -m tests.sam_local.compare

lock: .venv/uv ## pin the newest version of every package, with hashes
	$(BIN)/python -m tools.lock

clean: ## remove everything that these commands created
	@$(PYTHON) -m tools.stopped .local
	rm -rf .venv .venv-sam .venv-audit .local .aws-sam .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

.venv/uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
	  f"error: Python 3.11 to 3.13 is needed, $(PYTHON) is {sys.version.split()[0]}; name another with PYTHON=…")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/run: .venv/uv requirements/run.txt
	@echo "installing what the application needs …"
	@$(INSTALL) requirements/run.txt
	@touch $@

.venv/dev: .venv/run requirements/dev.txt
	@echo "installing what tests and lint need …"
	@$(INSTALL) requirements/dev.txt
	@touch $@

.venv-audit/done: .venv/uv requirements/audit.txt
	@echo "installing checkov and pip-audit …"
	@$(PYTHON) -m venv .venv-audit
	@VIRTUAL_ENV=.venv-audit $(BIN)/uv pip install --quiet --require-hashes --compile-bytecode -r requirements/audit.txt
	@touch $@

.venv-sam/done: .venv/uv requirements/sam.txt
	@echo "installing the SAM CLI …"
	@$(PYTHON) -m venv .venv-sam
	@VIRTUAL_ENV=.venv-sam $(BIN)/uv pip install --quiet --require-hashes --compile-bytecode -r requirements/sam.txt
	@touch $@
