# What csrc compiles to, for whoever includes this with CSRC, the way to this folder, and BUILD, where objects go.
MACHINE := $(shell $(CC) -dumpmachine)
# As setup.py has them.
CFLAGS := -std=c11 -O3 -g -ffp-contract=fast -fno-math-errno -fno-trapping-math -fvisibility=hidden -pthread \
	-Wall -Wextra -Werror -I$(CSRC)/include
ifneq (,$(filter x86_64%,$(MACHINE)))
ISAS := x86_64_v2 x86_64_v3 x86_64_v4
x86_64_v2.FLAGS := -march=x86-64-v2
x86_64_v3.FLAGS := -march=x86-64-v3
x86_64_v4.FLAGS := -march=x86-64-v4 -mprefer-vector-width=512
else
ISAS := aarch64
endif

HEADERS = $(shell find $(CSRC) -name '*.h')
OBJECTS = $(patsubst $(CSRC)/%.c,$(BUILD)/%.o,$(wildcard $(CSRC)/*.c)) $(ISAS:%=$(BUILD)/isa/%.o)

$(BUILD)/%.o: $(CSRC)/%.c $(HEADERS)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $($(basename $(@F)).FLAGS) -c -o $@ $<
