# What csrc compiles to, for whoever includes this with CSRC, the way to this folder, and BUILD, where objects go.
MACHINE := $(shell $(CC) -dumpmachine)
# As setup.py has them, position independent for shared libraries, too. CFLAGS, the caller's own, come after these.
FLAGS := -std=c11 -O3 -g -ffp-contract=fast -fno-math-errno -fno-trapping-math -fvisibility=hidden -fPIC -pthread \
	-Wall -Wextra -Werror -I$(CSRC)/include
# suffix,name,flag,flag... for each instruction set of this compiler's machine; see isa/flags.h.
SETS := $(shell $(CC) -E -P -x c $(CSRC)/isa/flags.h | tr '\n' ' ' | sed 's/"-m" "/"-m/g; s/"//g; s/ *TABLE */@/g' | \
	tr ' @' ',\n' | LC_ALL=C grep '^[a-z]')
comma := ,
# Those that the compiler has no flags for are left out.
define instruction_set
$(1).FLAGS := $(wordlist 3,99,$(subst $(comma), ,$(2)))
ifeq (yes,$$(shell echo 'int x;' | $(CC) $$($(1).FLAGS) -x c -c -o /dev/null - && echo yes))
ISAS += $(1)
else
FLAGS += -DTRPO_WITHOUT_$(1)
endif
endef
$(foreach set,$(SETS),$(eval $(call instruction_set,$(firstword $(subst $(comma), ,$(set))),$(set))))
ifeq (,$(ISAS))
$(error $(CC) compiles for no machine that there are kernels for)
endif
random.FLAGS := -ffp-contract=off

HEADERS = $(shell find $(CSRC) -name '*.h')
OBJECTS = $(patsubst $(CSRC)/%.c,$(BUILD)/%.o,$(wildcard $(CSRC)/*.c)) $(ISAS:%=$(BUILD)/isa/%.o)

$(BUILD)/%.o: $(CSRC)/%.c $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(FLAGS) $(CFLAGS) $($(basename $(@F)).FLAGS) -c -o $@ $<
